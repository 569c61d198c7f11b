"""Ray drains the node of a training: a checkpoint at once, and nothing is lost with the node."""

import os
import time

import pytest
from test_resume import rows
from training_cluster import (
    Driver,
    ray_nodes,
    saved_step,
    training_config,
    uninterrupted,
    wait_until,
    with_knowledge,
)

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.config import dump_config
from lorid.method.roles import Role
from lorid.training.loop import ADAPTER_FOLDER

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    # A minute, and CI has few: what is done on notice is what is done at every checkpoint.
    pytest.mark.skipif(
        "LORID_TRAIN_RAY_KILLS" not in os.environ, reason="set LORID_TRAIN_RAY_KILLS to run it"
    ),
]
NUM_STEPS, NUM_PROBLEMS = 240, 40
SECONDS_LEFT = 30


def drain(node, *, address: str) -> None:
    """What a cluster's manager does before it takes a node away."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline = int((time.time() + SECONDS_LEFT) * 1000)
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=address).drain_node(node.node_id, reason, "test", deadline)
    assert accepted, why


def test_a_node_that_is_drained_leaves_a_checkpoint(tmp_path):
    config = with_knowledge(
        training_config(
            tmp_path / "store", mode="fused", num_workers=2, num_steps=NUM_STEPS,
            count=NUM_PROBLEMS, checkpoint_every_steps=10_000, max_failures=1,
        ),
        tmp_path / "knowledge",
        count=NUM_PROBLEMS,
    )  # fmt: skip
    with uninterrupted(config, tmp_path, count=NUM_PROBLEMS) as whole, ray_nodes([1, 1]) as nodes:
        address = nodes.cluster.address
        driver = Driver(dump_config(config), tmp_path, address=address)
        # Lines come seldom, and the first may be of any step.
        wait_until(lambda: f"/{NUM_STEPS} " in driver.said, driver=driver)
        node, _ = nodes.trainers()[0]
        nodes.add(num_cpus=1)
        drain(node, address=address)
        saved = wait_until(lambda: saved_step(tmp_path / "store"), driver=driver)
        nodes.kill(node)
        assert driver.process.wait(timeout=200) == 0, driver.said
    print(f"drained: step {saved} was saved, of {NUM_STEPS}")
    assert saved < NUM_STEPS
    store = open_store(config.store)
    for record in list_records(store, kind="adapter"):
        role = Role(record.name.removeprefix("mortal-"))
        found = fetch(store, record, into=tmp_path / role)
        file = "adapter_model.safetensors"
        assert (found / file).read_bytes() == (whole / role / ADAPTER_FOLDER / file).read_bytes()
        assert rows(found) == rows(whole / role)

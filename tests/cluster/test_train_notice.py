"""Ray drains the node of a training: a checkpoint at once, and nothing is lost with the node.

Nor does it cost one of `max_failures`, unless the node goes before the time that was said: Ray
takes that for a failure like any other.
"""

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
    pytest.mark.timeout(400),
    # A minute, and CI has few: what is done on notice is what is done at every checkpoint.
    pytest.mark.skipif(
        "LORID_TRAIN_RAY_KILLS" not in os.environ, reason="set LORID_TRAIN_RAY_KILLS to run it"
    ),
]
NUM_STEPS, NUM_PROBLEMS = 240, 40
SECONDS_LEFT = 30


def drain(node, *, address: str) -> float:
    """What a cluster's manager does before it takes a node away; when it will, in `time.time()`."""
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    deadline = time.time() + SECONDS_LEFT
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=address).drain_node(
        node.node_id, reason, "test", int(deadline * 1000)
    )
    assert accepted, why
    return deadline


@pytest.mark.parametrize(("is_early", "max_failures"), [(False, 0), (True, 1)])
def test_a_node_that_is_drained_leaves_a_checkpoint(tmp_path, is_early, max_failures):
    config = with_knowledge(
        training_config(
            tmp_path / "store", mode="fused", num_workers=2, num_steps=NUM_STEPS,
            count=NUM_PROBLEMS, checkpoint_every_steps=10_000, max_failures=max_failures,
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
        deadline = drain(node, address=address)
        saved = wait_until(lambda: saved_step(tmp_path / "store"), driver=driver)
        if not is_early:
            wait_until(lambda: time.time() > deadline, driver=driver)
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

"""SIGKILL for the worker, the node and the driver of a training on Ray: nothing of it shows.

The adapters equal those of a session that nobody killed, which ran here without Ray, bit for bit;
metrics.jsonl has every step once. A node's death is that of its worker too; LORID_TRAIN_RAY_KILLS=3
kills a worker alone as well, 10 each of them again and again.
"""

import itertools
import os
import random
from pathlib import Path

import pytest
from test_resume import rows
from training_cluster import (
    Driver,
    Nodes,
    ray_nodes,
    saved_step,
    training_config,
    uninterrupted,
    wait_until,
    with_knowledge,
)

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, dump_config
from lorid.method.roles import Role
from lorid.training.loop import ADAPTER_FOLDER

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
NUM_KILLS = int(os.environ.get("LORID_TRAIN_RAY_KILLS", "2"))
SEED = int(os.environ.get("LORID_SEED", "0")) or random.randrange(10**6)
STEPS_PER_KILL = 6
NUM_PROBLEMS = 40
WEIGHTS = "adapter_model.safetensors"


def test_whatever_is_killed_the_adapters_are_those_of_a_whole_run(tmp_path):
    num_steps = STEPS_PER_KILL * (NUM_KILLS + 1)
    config = with_knowledge(
        training_config(
            tmp_path / "store", mode="fused", num_workers=2, num_steps=num_steps,
            count=NUM_PROBLEMS,
        ),
        tmp_path / "knowledge",
        count=NUM_PROBLEMS,
    )  # fmt: skip
    with uninterrupted(config, tmp_path, count=NUM_PROBLEMS) as whole, ray_nodes([1, 1]) as nodes:
        said = train_under_fire(config, tmp_path, nodes=nodes, rng=random.Random(SEED))
    print(f"seed {SEED}: {said}; then done")

    store = open_store(config.store)
    records = {record.name: record for record in list_records(store, kind="adapter")}
    assert len(records) == 3
    for role in Role:
        found = fetch(store, records[f"mortal-{role}"], into=tmp_path / role)
        assert (found / WEIGHTS).read_bytes() == (
            whole / role / ADAPTER_FOLDER / WEIGHTS
        ).read_bytes()
        # Every step once, in order, as the whole run took them.
        assert rows(found) == rows(whole / role)
        assert [row["step"] for row in rows(found)] == list(range(1, num_steps + 1))
    left = list((tmp_path / "store" / "train-runs").glob("*/checkpoint_*/"))
    assert len(left) == 1, left


def train_under_fire(config: RunConfig, folder: Path, *, nodes: Nodes, rng: random.Random) -> str:
    """Train to the end, killing whatever comes next in turn at random steps; says what was."""
    store, address, killed = folder / "store", nodes.cluster.address, []
    driver = Driver(dump_config(config), folder, address=address)
    kinds = itertools.cycle(["node", "driver", "worker"])
    for number, kind in zip(range(NUM_KILLS), kinds, strict=False):
        at = number * STEPS_PER_KILL + rng.randint(2, STEPS_PER_KILL)
        wait_until(lambda at=at: saved_step(store) >= at, driver=driver)
        node, process = rng.choice(wait_until(nodes.trainers, driver=driver))
        if kind == "worker":
            process.kill()
        elif kind == "node":
            nodes.add(num_cpus=1)
            nodes.kill(node)
        else:
            driver.kill()
            driver = Driver(dump_config(config), folder, address=address)
        killed.append(f"{kind} once step {at} was saved")
    assert driver.process.wait(timeout=300) == 0, driver.said
    return ", ".join(killed)

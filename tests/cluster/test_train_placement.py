"""Trainings of several workers on a cluster that is too small for all: in turn, whatever fails."""

import os
import re
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from test_resume import rows
from training_cluster import (
    ray_nodes,
    saved_step,
    training_config,
    uninterrupted,
    with_knowledge,
)

from lorid.artifacts.records import fetch, list_records, publish
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, dump_config, parse_config
from lorid.distributed.inputs import adapter_inputs
from lorid.errors import ResourceError, TrainingError
from lorid.method.roles import Role
from lorid.training.loop import ADAPTER_FOLDER
from lorid.training.track import METRICS_FILE

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    # A minute: the parts are tested in test_placement, test_ranks and test_train_kills.
    pytest.mark.skipif(
        "LORID_TRAIN_RAY_KILLS" not in os.environ, reason="set LORID_TRAIN_RAY_KILLS to run it"
    ),
]
IR, KG, DR = Role
NUM_STEPS, NUM_PROBLEMS = 8, 16


class Watcher(threading.Thread):
    """Counts the workers of all trainings, and kills one once the first training is at work."""

    def __init__(self, nodes, store: Path) -> None:
        super().__init__(daemon=True)
        self.nodes, self.store, self.is_over = nodes, store, threading.Event()
        self.most, self.killed = 0, 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.join()

    def run(self) -> None:
        while not self.is_over.is_set():
            trainers = self.nodes.trainers()
            self.most = max(self.most, len(trainers))
            if len(trainers) == 2 and not self.killed and saved_step(self.store):
                trainers[1][1].kill()
                self.killed += 1
            time.sleep(0.05)


def names(config: RunConfig) -> set[str]:
    return {record.name for record in list_records(open_store(config.store), kind="adapter")}


def test_two_trainings_of_two_workers_take_turns_on_three_places(tmp_path, monkeypatch):
    from lorid.distributed.cluster import connected
    from lorid.distributed.opening import open_run
    from lorid.distributed.pipeline import train

    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    config = training_config(
        tmp_path / "store", num_steps=NUM_STEPS, count=NUM_PROBLEMS, num_workers=2, max_failures=0,
        sequences_per_step=2,
    )  # fmt: skip
    with_knowledge(config, tmp_path / "knowledge", count=NUM_PROBLEMS)
    with uninterrupted(config, tmp_path, count=NUM_PROBLEMS) as whole:
        pass
    adapter = whole / DR / ADAPTER_FOLDER
    (adapter / METRICS_FILE).write_bytes((whole / DR / METRICS_FILE).read_bytes())
    publish(
        open_store(config.store), adapter, kind="adapter", name=f"mortal-{DR}",
        inputs=adapter_inputs(config, DR),
    )  # fmt: skip
    said: list[str] = []
    with ray_nodes([1, 1, 1]) as nodes:
        monkeypatch.setenv("RAY_ADDRESS", nodes.cluster.address)
        with connected(), Watcher(nodes, tmp_path / "store") as watcher:
            run = open_run(config, announce=said.append)
            with pytest.raises(TrainingError) as caught:
                train(run)
            # The other was trained all the same, after the one that failed.
            assert names(config) == {f"mortal-{KG}", f"mortal-{DR}"}
            assert "2 trainings x 2 workers of 1 CPU: one after the other" in "".join(said)
            assert (watcher.killed, watcher.most) == (1, 2)
            message = str(caught.value)
            assert re.match(rf"not trained: {IR}: .*\(log: [^ ]+:/.*\.err\); run again", message)

            said.clear()
            train(run)
            assert [line for line in said if "skipped" in line] == [
                f"  {role}: already trained, skipped" for role in (KG, DR)
            ]
            assert names(config) == {f"mortal-{role}" for role in Role}

            too_many = parse_config(
                dump_config(config), overrides=["training.num_workers=4", "training.rank=8"]
            )
            with pytest.raises(ResourceError, match="room for 3 of the 4 at most"):
                train(open_run(too_many, announce=said.append))
    for role in (IR, KG):
        (record,) = (
            record
            for record in list_records(open_store(config.store), kind="adapter")
            if record.name == f"mortal-{role}"
        )
        assert record.details["num_workers"] == "2"
        found = fetch(open_store(config.store), record, into=tmp_path / role)
        # Alone it is what it is beside others; and Ray's two workers are two ranks anywhere.
        for one, two in zip(rows(found), rows(whole / role), strict=True):
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)

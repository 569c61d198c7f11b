"""Ray nodes as processes of this machine, and trainings on them that can be watched and killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml

from lorid.artifacts.enriched import write_enriched
from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, dump_config, parse_config
from lorid.demo.generator import generate
from lorid.distributed.inputs import knowledge_inputs
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "cluster")]),
}  # fmt: skip
# A node that was killed is missed within a second or two, not half a minute.
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@contextmanager
def ray_nodes(num_cpus: list[int]) -> Iterator["Nodes"]:
    """A head without CPUs and a node for each number."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0, "_system_config": QUICK, "object_store_memory": 80 * 1024**2,
            "include_dashboard": False,
        },
    )  # fmt: skip
    nodes = Nodes(cluster)
    try:
        for count in num_cpus:
            nodes.add(num_cpus=count)
        yield nodes
    finally:
        cluster.shutdown()


class Nodes:
    """The nodes beside the head, and what runs on them."""

    def __init__(self, cluster) -> None:
        self.cluster, self.workers = cluster, []

    def add(self, *, num_cpus: int) -> None:
        node = self.cluster.add_node(num_cpus=num_cpus, object_store_memory=80 * 1024**2)
        self.workers.append(node)

    def trainers(self) -> list[tuple[object, psutil.Process]]:
        """Every training worker with its node."""
        found = []
        for node in self.workers:
            with suppress(psutil.Error):  # it may end while it is looked at
                raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
                found += [
                    (node, process)
                    for process in raylet.children(recursive=True)
                    if "RayTrainWorker" in " ".join(process.cmdline())
                ]
        return found

    def kill(self, node) -> None:
        """SIGKILL the raylet and all of its processes, as when a machine is lost."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        doomed = [raylet, *raylet.children(recursive=True)]
        for process in doomed:
            process.send_signal(signal.SIGKILL)
        self.workers.remove(node)
        self.cluster.worker_nodes.discard(node)
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def training_config(store: Path, *, num_steps: int, count: int, **training) -> RunConfig:
    """The demo's student on so many problems, one a step; small adapters."""
    epochs = {str(role): num_steps / count for role in Role}
    settings = {
        "rank": 4, "alpha": 8, "sequences_per_step": 1, "num_epochs_by_role": epochs,
        "dropout": 0.1, "checkpoint_every_steps": 2, "max_failures": 50, "num_gpus": 0,
        "num_cpus": 1,
    }  # fmt: skip
    sections = {
        "preset": "demo", "name": "mortal", "store": str(store),
        "training": {**settings, **training},
    }  # fmt: skip
    return parse_config(yaml.safe_dump(sections))


def with_knowledge(config: RunConfig, folder: Path, *, count: int) -> RunConfig:
    """The config, once its store has the knowledge that its training reads."""
    write_enriched(folder, problems(count))
    publish(
        open_store(config.store),
        folder,
        kind="knowledge",
        name=config.name,
        inputs=knowledge_inputs(config),
    )
    return config


def problems(count: int) -> list[EnrichedProblem]:
    return list(generate(split="train", count=count, seed=1))


@contextmanager
def uninterrupted(config: RunConfig, folder: Path, *, count: int) -> Iterator[Path]:
    """The same training without Ray, in other processes meanwhile; what it saved is there after."""
    file, out = folder / "whole.yaml", folder / "whole"
    file.write_text(dump_config(config))
    script = Path(__file__).with_name("whole_training.py")
    command = [sys.executable, str(script), str(file), str(out), str(count)]
    process = subprocess.Popen(command, env=ENVIRONMENT)
    try:
        yield out
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()


class Driver:
    """`train_driver.py` as a process of its own."""

    def __init__(self, config_text: str, folder: Path, *, address: str) -> None:
        file = folder / "run.yaml"
        file.write_text(config_text)
        self.log = folder / "driver.log"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("train_driver.py")), str(file)],
            env={**ENVIRONMENT, "RAY_ADDRESS": address, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"},
            stdout=self.log.open("a"),
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return self.log.read_text()


def wait_until(claim: Callable[[], object], *, driver: Driver, timeout: float = 120) -> object:
    """What the claim answers once it is true; fails when the driver has ended before."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := claim():
            return found
        assert driver.process.poll() is None, driver.said
        time.sleep(0.02)
    raise AssertionError(f"waited too long:\n{driver.said}")


def saved_step(store: Path) -> int:
    """The newest step in a whole checkpoint of any training."""
    steps = [0]
    for file in (store / "train-runs").glob("*/checkpoint_manager_snapshot.json"):
        try:
            newest = json.loads(file.read_text())["latest_checkpoint_result"]
        except ValueError:  # it is being written
            continue
        if newest:
            steps += [summary["step"] for summary in newest["metrics"].values()]
    return max(steps)

"""A cluster that grows and shrinks on one machine: Ray's autoscaler with its fake cloud.

    with autoscaling_head(tmp_path) as head:          # no worker runs yet
        job = head.start_job("train_adapters.py", folder=tmp_path, log=log)
        kill_node(head.workers("RayTrainWorker")[0][0])           # as when a machine is lost

Node types are cluster.yaml's, each with its CPUs and, in the place of GPUs that this machine does
not have, a resource `stand_in_gpu`. Ray's fake multi-node provider starts a node as processes here.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from free_ports import free_port
from training_cluster import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = "stand_in_gpu"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
# The fake provider's own names for its head.
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
HEAD_TYPE = "ray.head.default"
IDLE_MINUTES = 0.1
# A killed node is missed within five seconds. One that is only slow, for many of them share two
# cores, is not taken for dead: Ray ends such a node.
HEALTH = {
    "health_check_initial_delay_ms": 5000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 20_000,
    "health_check_failure_threshold": 4,
}


def node_types() -> dict[str, dict[str, Any]]:
    """cluster.yaml's workers as nodes of this machine."""
    launcher = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {}
    for name, kind in launcher["available_node_types"].items():
        if name != launcher["head_node_type"]:
            resources = dict(kind["resources"])
            if gpus := resources.pop("GPU", 0):
                resources[STAND_IN] = gpus
            types[name] = {
                "resources": {**resources, "object_store_memory": 80 * 1024**2},
                "node_config": {},
                "min_workers": kind["min_workers"],
                "max_workers": kind["max_workers"],
            }
    return types


def cloud_config(types: dict[str, dict[str, Any]], *, address: str) -> dict[str, Any]:
    """The launcher's file for them."""
    # The autoscaler wants every key to be there.
    empty = (
        "cluster_synced_files", "initialization_commands", "setup_commands", "rsync_filter",
        "head_setup_commands", "worker_setup_commands", "rsync_exclude",
        "head_start_ray_commands", "worker_start_ray_commands",
    )  # fmt: skip
    return {
        "cluster_name": "fake",
        "max_workers": 12,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            # By its name as a class: Ray 2.60's wheel lacks the defaults of `type: fake_multinode`.
            "type": "external", "module": PROVIDER, "gcs_address": address,
            "head_node_id": HEAD_ID, "launch_multiple": True, "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "auth": {"ssh_user": "nobody"},
        "docker": {},
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **types
        },
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in empty},
    }  # fmt: skip


class Head:
    """A head without CPUs; its nodes and everything on them are its descendants, or die with it."""

    def __init__(self, folder: Path, *, types: dict[str, dict[str, Any]]) -> None:
        from ray._private.services import get_node_ip_address

        self.folder, self.port = folder, free_port()
        self.address = f"{get_node_ip_address()}:{self.port}"
        self.config = folder / "cloud.yaml"
        self.config.write_text(yaml.safe_dump(cloud_config(types, address=self.address)))
        self.process: subprocess.Popen[bytes] | None = None
        self.sockets = ""

    def start(self) -> None:
        """Start it, on the same port each time."""
        self.sockets = tempfile.mkdtemp(prefix="lorid-ray-")
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
            "--num-cpus=0", f"--port={self.port}", f"--autoscaling-config={self.config}",
            "--object-store-memory=100000000", "--include-dashboard=false",
            f"--temp-dir={self.sockets}", f"--ray-client-server-port={free_port()}",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--dashboard-agent-listen-port={free_port()}",
            f"--system-config={json.dumps(HEALTH)}",
        ]  # fmt: skip
        environment = {
            "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "CI": "",
            "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            # The nodes of one machine share its cores: no workers before they are needed.
            "RAY_prestart_worker_first_driver": "0",
        }  # fmt: skip
        with (self.folder / "head.log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=ENVIRONMENT | environment
            )
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        host, _, port = self.address.rpartition(":")
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=5).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL the head's processes and those of its nodes."""
        assert self.process is not None
        doomed = psutil.Process(self.process.pid).children(recursive=True)
        doomed += [raylet for raylet in self.raylets() if raylet not in doomed]
        doomed += [child for one in doomed for child in _children(one) if child not in doomed]
        for member in doomed:
            with suppress(psutil.Error):
                member.kill()
        self.process.kill()
        self.process.wait(timeout=60)
        shutil.rmtree(self.sockets, ignore_errors=True)

    def raylets(self) -> list[psutil.Process]:
        """The raylets of its workers; the head's own is not among them."""
        found = []
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] or []
            if process.info["name"] == "raylet" and f"--gcs-address={self.address}" in words:
                found += [] if "--head" in words else [process]
        return found

    def workers(self, title: str) -> list[tuple[psutil.Process, psutil.Process]]:
        """Every process of that title on a worker, after its raylet."""
        return [
            (raylet, child)
            for raylet in self.raylets()
            for child in _children(raylet)
            if title in _title(child)
        ]

    def start_job(self, name: str, *, folder: Path, log: Path) -> subprocess.Popen[bytes]:
        """A file of jobs/ as a driver beside the head; its config is run.yaml in that folder."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / name), "--config", "run.yaml"],
            cwd=folder,
            env=ENVIRONMENT | {"RAY_ADDRESS": self.address},
            stdout=log.open("a"),
            stderr=subprocess.STDOUT,
        )


def kill_node(raylet: psutil.Process) -> None:
    """SIGKILL a node's raylet and all of its processes, as when a machine is lost."""
    for process in (raylet, *_children(raylet)):
        with suppress(psutil.Error):
            process.kill()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def autoscaling_head(
    folder: Path, *, types: dict[str, dict[str, Any]] | None = None
) -> Iterator[Head]:
    """A head whose autoscaler has the fake cloud."""
    head = Head(folder, types=types or node_types())
    head.start()
    try:
        yield head
    finally:
        head.kill()


class Watch(threading.Thread):
    """Notes how many workers the cluster has, whenever that changes, by Ray's list of nodes."""

    def __init__(self, head: Head) -> None:
        super().__init__(daemon=True)
        self.address, self.over = head.address, threading.Event()
        self.began = time.monotonic()
        self.counts = [(0.0, 0)]

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def run(self) -> None:
        from ray._raylet import GcsClient
        from ray.core.generated.gcs_pb2 import GcsNodeInfo

        client = None
        while not self.over.wait(0.2):
            try:
                client = client or GcsClient(address=self.address)
                nodes = client.get_all_node_info(timeout=5).values()
            except Exception:  # the head is not there, or not yet
                client = None
                continue
            # The head is one of them.
            number = max(0, sum(node.state == GcsNodeInfo.ALIVE for node in nodes) - 1)
            if number != self.counts[-1][1]:
                self.counts.append((round(time.monotonic() - self.began, 1), number))

    @property
    def now(self) -> int:
        return self.counts[-1][1]

    def wait_for(self, number: int, *, timeout_s: float = 120) -> float:
        """Seconds until there are so many."""
        began = time.monotonic()
        while self.now != number:
            assert time.monotonic() - began < timeout_s, self.counts
            time.sleep(0.1)
        return time.monotonic() - began


def said_by(log: Path, part: str, *, job: subprocess.Popen[bytes], timeout_s: float = 200) -> str:
    """The log, once the part stands in it; fails when the job has ended before."""
    deadline = time.monotonic() + timeout_s
    while part not in (text := log.read_text() if log.exists() else ""):
        assert job.poll() is None, text[-3000:]
        assert time.monotonic() < deadline, text[-3000:]
        time.sleep(0.1)
    return text


def note(case: str, **figures: object) -> None:
    """Print what a case measured, and keep it where LORID_FIGURES says (benchmarks/autoscaling.py).

    Seconds are those of this machine under its load: no test depends on them.
    """
    print(f"{case}: {figures}")
    if file := os.environ.get("LORID_FIGURES"):
        with Path(file).open("a") as lines:
            lines.write(json.dumps({"case": case, **figures}) + "\n")

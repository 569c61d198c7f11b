"""Ray's autoscaler brings a node for each of the three trainings, and takes them back when idle.

Ray's fake multi-node provider is the cloud: its nodes are processes of this machine. Node types are
cluster.yaml's, with a resource `stand_in_gpu` in the place of the GPU; a training asks for all
of a node's CPUs instead, so that each needs a node of its own, as it does with one GPU a node.

LORID_AUTOSCALING=1 runs it (a minute and a half on two quiet cores).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from small import free_port, small_config_text

from lorid.artifacts.enriched import write_enriched
from lorid.artifacts.records import list_records, publish
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, dump_config, parse_config
from lorid.demo.generator import generate
from lorid.distributed.inputs import knowledge_inputs

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(420),
    pytest.mark.skipif(
        os.environ.get("LORID_AUTOSCALING") != "1", reason="LORID_AUTOSCALING=1 runs it"
    ),
]
ROOT = Path(__file__).resolve().parents[2]
STAND_IN = "stand_in_gpu"
IDLE_MINUTES = 0.1
LIMIT_S = 120.0


def fake_cloud(*, address: str) -> dict:
    """cluster.yaml's GPU workers as nodes of this machine."""
    launcher = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {}
    for name, kind in launcher["available_node_types"].items():
        if name != launcher["head_node_type"] and "GPU" in kind["resources"]:
            resources = dict(kind["resources"])
            resources[STAND_IN] = resources.pop("GPU")
            types[name] = {
                "resources": {**resources, "object_store_memory": 80 * 1024**2},
                "node_config": {},
                "min_workers": kind["min_workers"],
                "max_workers": kind["max_workers"],
            }
    # The provider knows its head by this name, and the monitor wants every key to be there.
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    lists = ("cluster_synced_files", "initialization_commands", "setup_commands")
    starts = ("head_setup_commands", "worker_setup_commands", "rsync_exclude", "rsync_filter")
    commands = ("head_start_ray_commands", "worker_start_ray_commands")
    return {
        "cluster_name": "fake",
        "max_workers": launcher["max_workers"],
        "upscaling_speed": launcher["upscaling_speed"],
        "idle_timeout_minutes": IDLE_MINUTES,
        # Its nodes come up by themselves: there is no machine to install anything on.
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {"ssh_user": "nobody"},
        "docker": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": head, **types},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in (*lists, *starts, *commands)},
    }


@contextmanager
def autoscaling_head(folder: Path) -> Iterator[str]:
    """A head without CPUs whose autoscaler has the fake cloud; yields its address."""
    from ray._private.services import get_node_ip_address

    port = free_port()
    address = f"{get_node_ip_address()}:{port}"
    (folder / "cloud.yaml").write_text(yaml.safe_dump(fake_cloud(address=address)))
    sockets = tempfile.mkdtemp(prefix="lorid-ray-")
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=0",
        f"--port={port}", f"--autoscaling-config={folder / 'cloud.yaml'}",
        "--object-store-memory=100000000", "--include-dashboard=false", f"--temp-dir={sockets}",
        f"--ray-client-server-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0",
        f"--dashboard-agent-listen-port={free_port()}",
    ]  # fmt: skip
    # Without prestarted workers: the nodes of one machine share its cores.
    environment = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_prestart_worker_first_driver": "0", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"CI": ""} | environment
        )
    try:
        yield address
    finally:
        for member in (*psutil.Process(process.pid).children(recursive=True), process):
            member.kill()
        process.wait(timeout=60)
        shutil.rmtree(sockets, ignore_errors=True)


class Watch(threading.Thread):
    """Counts the cluster's workers, by Ray's own list of nodes, as long as it runs."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address, self.counts, self.over = address, [(0.0, 0)], threading.Event()
        self.began = time.monotonic()

    def run(self) -> None:
        from ray._raylet import GcsClient
        from ray.core.generated.gcs_pb2 import GcsNodeInfo

        client = None
        while not self.over.wait(0.2):
            try:
                client = client or GcsClient(address=self.address)
                nodes = client.get_all_node_info(timeout=5).values()
            except Exception:  # the head is not there yet
                client = None
                continue
            alive = sum(node.state == GcsNodeInfo.ALIVE for node in nodes)
            if max(0, alive - 1) != self.counts[-1][1]:
                self.counts.append((time.monotonic() - self.began, max(0, alive - 1)))

    @property
    def now(self) -> int:
        return self.counts[-1][1]


def ready_to_train(folder: Path) -> RunConfig:
    """A config whose store has the knowledge that its training reads; a node for each training."""
    sections = yaml.safe_load(small_config_text(store=folder / "store", name="scaled"))
    workers = fake_cloud(address="")["available_node_types"]
    (num_cpus,) = {kind["resources"]["CPU"] for kind in workers.values()} - {0}
    sections["training"] |= {"num_epochs": 2, "num_cpus": num_cpus}
    config = parse_config(yaml.safe_dump(sections))
    write_enriched(folder / "rows", list(generate(split="train", count=48, seed=1)))
    publish(
        open_store(config.store), folder / "rows",
        kind="knowledge", name=config.name, inputs=knowledge_inputs(config),
    )  # fmt: skip
    return config


def test_three_workers_come_when_three_adapters_train_and_go_when_they_are_done(tmp_path):
    config = ready_to_train(tmp_path)
    (tmp_path / "run.yaml").write_text(dump_config(config))
    with autoscaling_head(tmp_path) as address:
        watch = Watch(address)
        watch.start()
        job = subprocess.run(
            [sys.executable, str(ROOT / "jobs" / "train_adapters.py"), "--config", "run.yaml"],
            cwd=tmp_path,
            env=os.environ | {"RAY_ADDRESS": wait_for(address), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        trained = time.monotonic() - watch.began
        assert job.returncode == 0, job.stderr[-3000:]
        deadline = time.monotonic() + LIMIT_S
        while watch.now and time.monotonic() < deadline:
            time.sleep(0.2)
        watch.over.set()
        watch.join()
    print(f"workers: {watch.counts}; trained after {trained:.0f} s")
    assert watch.counts[0][1] == 0
    assert max(count for _, count in watch.counts) == 3
    assert watch.now == 0
    kinds = [record.kind for record in list_records(open_store(config.store))]
    assert kinds.count("adapter") == 3
    assert "triple" in kinds


def wait_for(address: str) -> str:
    """The address, once somebody listens there."""
    import socket

    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return address
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)

"""cluster.yaml passes Ray's own validation, offers what jobs ask for, and installs the lock."""

import json
import re
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from lorid.config import load_config
from lorid.distributed.cluster import ENVIRONMENT
from lorid.distributed.demands import demands_of
from lorid.presets import PRESETS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "cluster.yaml"
CONFIGS = sorted((ROOT / "deploy" / "configs").glob("*.yaml"))


def launcher_config() -> dict:
    return yaml.safe_load(FILE.read_text())


def worker_types() -> dict[str, dict]:
    config = launcher_config()
    types = config["available_node_types"]
    return {name: kind for name, kind in types.items() if name != config["head_node_type"]}


def test_ray_accepts_the_file():
    validate_config(prepare_config(launcher_config()))


def test_the_head_takes_no_work_and_gpu_workers_come_and_go_on_spot():
    config = launcher_config()
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(kind["min_workers"] == 0 for kind in worker_types().values())
    gpus = [kind for kind in worker_types().values() if kind["resources"].get("GPU")]
    assert gpus
    assert all(kind["node_config"]["InstanceMarketOptions"] for kind in gpus)
    assert sum(kind["max_workers"] for kind in worker_types().values()) <= config["max_workers"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: config.update(head_node_type="nobody"),
        lambda config: config.update(nodes=3),
        lambda config: config["available_node_types"]["gpu"].update(min_workers=13),
    ],
)
def test_ray_would_refuse_a_wrong_file(spoil):
    config = launcher_config()
    spoil(config)
    with pytest.raises(Exception, match=r"head_node_type|nodes|min_workers"):
        validate_config(prepare_config(config))


def test_every_node_has_token_authentication_and_the_dashboard_stays_on_loopback():
    config = launcher_config()
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    (head,) = [line for line in starts if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in FILE.read_text()


def test_serve_is_told_the_same_in_every_place_where_ray_starts():
    key = "RAY_SERVE_PROXY_USE_GRPC"
    told = f"{key}={ENVIRONMENT[key]}"
    assert f"--env {told}" in launcher_config()["docker"]["run_options"]
    for path in ("deploy/docker/Dockerfile", "docs/running.md"):
        assert told in (ROOT / path).read_text()


def test_what_is_mounted_is_there_and_what_is_installed_is_the_lock():
    config = launcher_config()
    local = [path for path in config["file_mounts"].values() if not path.startswith("~")]
    assert all((ROOT / path).exists() for path in local)
    installs = [line for line in config["setup_commands"] if "pip install" in line]
    assert all("--no-deps" in line for line in installs)
    assert "-r ~/lorid/locks/gpu.txt" in installs[0]
    # The image's Ray and Python are those of the lock: the launcher talks to nodes by both.
    (ray,) = re.findall(r"^ray==(.+)$", (ROOT / "locks" / "gpu.txt").read_text(), re.MULTILINE)
    assert config["docker"]["image"] == f"rayproject/ray:{ray}-py311-cpu"


def test_nodes_reach_the_store_by_instance_profiles_and_no_key_is_in_the_files():
    folder = ROOT / "deploy" / "aws"
    text = FILE.read_text() + "".join(file.read_text() for file in folder.iterdir())
    assert not re.search(r"AKIA|aws_secret|SECRET_ACCESS_KEY", text)
    profiles = {
        kind["node_config"]["IamInstanceProfile"]["Name"]
        for kind in launcher_config()["available_node_types"].values()
    }
    assert profiles == {"lorid-head", "lorid-worker"}
    # What the head may give away is what workers have, and what it may end is this cluster's.
    head = json.loads((folder / "head-policy.json").read_text())["Statement"]
    (passes,) = [one for one in head if one["Action"] == "iam:PassRole"]
    assert passes["Resource"].endswith("role/lorid-worker")
    (ends,) = [one for one in head if "ec2:TerminateInstances" in one["Action"]]
    tag = ends["Condition"]["StringEquals"]["aws:ResourceTag/ray-cluster-name"]
    assert tag == launcher_config()["cluster_name"]


@pytest.mark.parametrize("name", [*PRESETS, *(file.name for file in CONFIGS)])
def test_every_place_that_a_run_asks_for_is_on_a_node_that_may_come(name):
    file = ROOT / "deploy" / "configs" / name
    config = load_config(file) if file.exists() else load_config(None, preset=name)
    for demand in demands_of(config):
        fitting = [
            kind["max_workers"]
            for kind in worker_types().values()
            if demand.fits_on(
                num_cpus=kind["resources"]["CPU"], num_gpus=kind["resources"].get("GPU", 0)
            )
        ]
        assert fitting, f"{name}: no node type has room for the {demand.what}"
        if demand.num_gpus:
            assert sum(fitting) >= demand.count


def test_a_run_that_asks_for_more_than_a_node_has_is_found():
    config = load_config(None, preset="gsm8k_mistral", overrides=["engine.tensor_parallel_size=4"])
    too_large = [
        demand.what
        for demand in demands_of(config)
        if not any(
            demand.fits_on(
                num_cpus=kind["resources"]["CPU"], num_gpus=kind["resources"].get("GPU", 0)
            )
            for kind in worker_types().values()
        )
    ]
    assert too_large == ["student's engine"]

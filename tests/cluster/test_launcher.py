"""cluster.yaml passes Ray's own validation and says what the README says."""

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = Path(__file__).parents[2] / "cluster.yaml"


def launcher_config() -> dict:
    return yaml.safe_load(FILE.read_text())


def test_ray_accepts_the_file():
    prepared = prepare_config(launcher_config())
    validate_config(prepared)
    assert prepared["provider"]["type"] == "aws"


def test_the_head_has_no_gpu_and_gpu_workers_come_and_go_on_spot():
    config = launcher_config()
    types = config["available_node_types"]
    head = types[config["head_node_type"]]
    assert "GPU" not in head["resources"]
    assert "InstanceMarketOptions" not in head["node_config"]
    (gpu,) = [kind for kind in types.values() if kind["resources"].get("GPU")]
    assert (gpu["min_workers"], gpu["node_config"]["InstanceMarketOptions"]) == (
        0,
        {"MarketType": "spot"},
    )
    assert gpu["max_workers"] > 1
    others = [kind for kind in types.values() if kind not in (head, gpu)]
    assert all(kind["min_workers"] == 0 and "GPU" not in kind["resources"] for kind in others)
    assert len(others) == 1


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


def test_every_node_starts_with_token_authentication():
    config = launcher_config()
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert "0.0.0.0" not in FILE.read_text()

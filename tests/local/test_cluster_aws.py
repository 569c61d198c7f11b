"""Ray's launcher brings cluster.yaml up on AWS's interfaces, as moto simulates them.

No machine starts and nothing is installed: what is shown is that Ray turns the file into requests
that EC2's interface takes, and what these say.
"""

from pathlib import Path

import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler.node_launch_exception import NodeLaunchException

ROOT = Path(__file__).parents[2]
TAGS = {"ray-node-type": "worker"}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The config as Ray's launcher resolves it, and its provider."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        home = tmp_path_factory.mktemp("home")
        (home / ".ssh").mkdir()
        patch.setenv("HOME", str(home))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        make_profiles()
        config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        config = _bootstrap_config(config, no_config_cache=True)
        provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
        yield config, provider


def make_profiles() -> None:
    import boto3

    iam = boto3.client("iam", region_name="us-west-2")
    for name in ("lorid-head", "lorid-worker"):
        iam.create_instance_profile(InstanceProfileName=name)


def start(launched, kind: str, *, count: int = 1) -> list:
    config, provider = launched
    node_config = config["available_node_types"][kind]["node_config"]
    created = provider.create_node(node_config, TAGS, count)
    return list(created.values())


def refuse_spot(provider, code: str, patch) -> list[dict]:
    """Let EC2 refuse spot machines with that code; returns what was asked for, as it comes."""
    asked: list[dict] = []
    create = provider.ec2_fail_fast.create_instances

    def answer(**request):
        asked.append(request)
        if "InstanceMarketOptions" in request:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "RunInstances")
        return create(**request)

    patch.setattr(provider.ec2_fail_fast, "create_instances", answer)
    return asked


def test_nodes_get_their_machine_type_profile_and_market(launched):
    (gpu,) = start(launched, "gpu")
    assert gpu.instance_type == "g6e.2xlarge"
    assert gpu.iam_instance_profile["Arn"].endswith("/lorid-worker")
    assert gpu.instance_lifecycle == "spot"
    (head,) = start(launched, "head")
    assert head.instance_type == "m6i.xlarge"
    assert head.iam_instance_profile["Arn"].endswith("/lorid-head")
    assert head.instance_lifecycle != "spot"


def test_only_ssh_is_open_to_other_machines(launched):
    (node,) = start(launched, "cpu")
    import boto3

    groups = [group["GroupId"] for group in node.security_groups]
    rules = [
        rule
        for group in boto3.resource("ec2", region_name="us-west-2").security_groups.filter(
            GroupIds=groups
        )
        for rule in group.ip_permissions
    ]
    assert {rule["FromPort"] for rule in rules if rule["IpRanges"]} == {22}
    within = [rule for rule in rules if rule["UserIdGroupPairs"]]
    assert all(pair["GroupId"] in groups for rule in within for pair in rule["UserIdGroupPairs"])


def test_without_spot_capacity_in_any_zone_a_node_comes_on_demand(launched, monkeypatch):
    asked = refuse_spot(launched[1], "InsufficientInstanceCapacity", monkeypatch)
    nodes = start(launched, "gpu", count=2)
    assert nodes
    assert {node.instance_type for node in nodes} == {"g6e.2xlarge"}
    spot = [request["SubnetId"] for request in asked if "InstanceMarketOptions" in request]
    assert len(set(spot)) == 3
    assert "InstanceMarketOptions" not in asked[-1]
    assert asked[-1]["MaxCount"] == 2
    assert not any(node.instance_lifecycle == "spot" for node in nodes)


def test_a_request_that_is_wrong_is_not_sent_again_on_demand(launched, monkeypatch):
    asked = refuse_spot(launched[1], "InvalidParameterValue", monkeypatch)
    with pytest.raises(NodeLaunchException, match="InvalidParameterValue"):
        start(launched, "gpu")
    assert all("InstanceMarketOptions" in request for request in asked)

"""What a cluster can never hold is refused with all of it; what waits is said, and nothing else."""

import threading
from types import SimpleNamespace

import pytest
from ray.autoscaler.v2.schema import (
    ClusterStatus,
    LaunchRequest,
    NodeInfo,
    PlacementGroupResourceDemand,
    RayTaskActorDemand,
    ResourceDemandSummary,
    ResourceRequestByCount,
    ResourceUsage,
)

from lorid.config import load_config
from lorid.distributed import room
from lorid.distributed.placement import Nodes
from lorid.errors import ResourceError

GPU_NODE, CPU_NODE = Nodes(num_cpus=8, num_gpus=1, count=8), Nodes(num_cpus=8, num_gpus=0)
HEAD = Nodes(num_cpus=0, num_gpus=0)
ALL = ("knowledge", "train", "evaluate")


@pytest.fixture
def refused(monkeypatch):
    """What a cluster of these nodes says to a config; nothing when it accepts it."""
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(room, "alive_nodes", lambda: [HEAD])

    def call(*overrides: str, to_come, stages=ALL) -> str:
        monkeypatch.setattr(room, "nodes_to_come", lambda: to_come)
        config = load_config(None, preset="gsm8k_mistral", overrides=overrides)
        try:
            room.require_room(config, stages=stages)
        except ResourceError as error:
            return str(error)
        return ""

    return call


def test_what_fits_a_node_that_may_come_is_accepted(refused):
    assert not refused(to_come=[GPU_NODE, CPU_NODE])


def test_everything_that_never_fits_is_named_with_the_sizes_and_the_settings(refused):
    said = refused("engine.tensor_parallel_size=4", "training.num_cpus=16", to_come=[GPU_NODE])
    assert "student's engine: " in said
    assert "4 GPUs" in said
    assert "training (separate): 16 CPUs, 1 GPU" in said
    assert "its nodes have 8 CPUs, 1 GPU" in said
    assert "lower num_cpus or num_gpus of engine and training" in said
    assert "\n" not in said


def test_only_stages_that_will_run_are_looked_at_and_only_where_it_is_known(refused):
    too_much = "engine.tensor_parallel_size=4"
    assert not refused(too_much, to_come=[GPU_NODE], stages=("train",))
    assert not refused(too_much, to_come=None)
    assert refused(too_much, to_come=[])


def status(*, bundles, kind="actors", coming=(), failed=(), free=0.0) -> ClusterStatus:
    counted = [ResourceRequestByCount(bundle=dict(bundle), count=n) for bundle, n in bundles]
    if kind == "actors":
        demands = ResourceDemandSummary(
            ray_task_actor_demand=[RayTaskActorDemand(bundles_by_count=counted)]
        )
    else:
        group = PlacementGroupResourceDemand(bundles_by_count=counted, details="")
        demands = ResourceDemandSummary(placement_group_demand=[group])
    requests = [
        LaunchRequest(
            instance_type_name=name, ray_node_type_name=name, count=count, request_ts_s=0,
            state=LaunchRequest.Status.PENDING,
        )
        for name, count in coming
    ]  # fmt: skip
    failures = [
        LaunchRequest(
            instance_type_name=name, ray_node_type_name=name, count=1, request_ts_s=0,
            state=LaunchRequest.Status.FAILED, details=why,
        )
        for name, why in failed
    ]  # fmt: skip
    usage = [
        ResourceUsage(resource_name="CPU", total=8.0, used=8.0 - free),
        ResourceUsage(resource_name="node:10.0.0.1", total=1.0, used=0.0),
        ResourceUsage(resource_name="memory", total=1e9, used=0.0),
    ]
    return ClusterStatus(
        resource_demands=demands, pending_launches=requests, failed_launches=failures,
        cluster_resource_usage=usage,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["actors", "group"])
def test_the_line_says_what_is_missing_and_what_is_on_its_way(kind):
    found = status(
        bundles=[({"CPU": 8.0, "GPU": 1.0}, 2), ({"CPU": 1.0}, 1)], kind=kind,
        coming=[("gpu", 2)], free=0.5,
    )  # fmt: skip
    starting = NodeInfo(
        instance_type_name="gpu", ray_node_type_name="gpu", instance_id="1", ip_address=""
    )
    found.pending_nodes.append(starting)
    assert str(room.waits_of(found)) == (
        "waiting for room: 2 x 8 CPUs, 1 GPU and 1 x 1 CPU; free now: 0.5 of 8 CPUs; "
        "gpu: 3 starting"
    )


def test_ray_s_order_of_resources_makes_no_difference():
    one = status(bundles=[({"CPU": 8.0, "GPU": 1.0}, 1)], free=0.5)
    other = status(bundles=[({"GPU": 1.0, "CPU": 8.0}, 1)], free=0.5)
    for found in (one, other):
        gpus = ResourceUsage(resource_name="GPU", total=1.0, used=0.0)
        found.cluster_resource_usage.append(gpus)
    other.cluster_resource_usage.reverse()
    assert room.waits_of(other) == room.waits_of(one)
    assert "1 x 8 CPUs, 1 GPU; free now: 0.5 of 8 CPUs, 1 of 1 GPUs;" in str(room.waits_of(other))


def test_a_cloud_that_refuses_is_quoted_and_a_silent_one_named():
    bundles = [({"CPU": 8.0, "GPU": 1.0}, 1)]
    refusing = status(bundles=bundles, failed=[("gpu", "InsufficientInstanceCapacity\nzone a")])
    assert str(room.waits_of(refusing)).endswith(
        "; gpu does not start: InsufficientInstanceCapacity zone a"
    )
    assert str(room.waits_of(status(bundles=bundles))).endswith("; no node is on its way")


def test_it_is_said_once_until_it_changes_or_a_minute_is_over(monkeypatch):
    one, two = ([({"CPU": number}, 1)] for number in (1.0, 2.0))
    looks = [[], one, [], *[one] * 4, two, *[two] * 6, [], one]
    over, said = threading.Event(), []

    def look(_: str) -> ClusterStatus:
        bundles = looks.pop(0)
        if not looks:
            over.set()
        return status(bundles=bundles)

    monkeypatch.setattr("ray.autoscaler.v2.sdk.get_cluster_status", look)
    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="here"))
    monkeypatch.setattr(room, "SECONDS_BETWEEN_LOOKS", 0.0)
    room.watch(over, say=said.append)
    assert [line.partition(";")[0] for line in said] == [
        "waiting for room: 1 x 1 CPU",
        "waiting for room: 1 x 2 CPUs",
        "waiting for room: 1 x 2 CPUs",
    ]

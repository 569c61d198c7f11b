"""Room in the cluster: what can never come is refused at once, what is waited for is said.

    require_room(config, stages=["knowledge", "train"])     # before anything starts
    with waits_said(display.say): ...                       # while a stage may wait for nodes

    waiting for room: 3 x 8 CPUs, 1 GPU; free now: 0 of 8 CPUs; gpu: 2 nodes are starting

Ray itself waits without a word, whether a node is on its way or no node could ever do. Demands are
the whole cluster's: what another job waits for stands in the same line.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lorid.config import EndpointConfig, RunConfig
from lorid.distributed.cluster import (
    alive_nodes,
    nodes_to_come,
    require_accelerators,
    require_engine,
)
from lorid.distributed.demands import Demand, demands_of, demands_to_ask
from lorid.distributed.placement import Nodes
from lorid.errors import ResourceError, one_line
from lorid.serving import EvaluationConfig

SECONDS_BETWEEN_LOOKS = 10.0
LOOKS_BETWEEN_LINES = 6
# Of every node, or of its memory: no demand of lorid's.
HIDDEN = ("node:", "object_store_memory", "memory", "bundle")
Say = Callable[[str], object]


def require_room(config: RunConfig, *, stages: Sequence[str]) -> None:
    """Refuse what no node of the cluster, or that its autoscaler may bring, is large enough for.

    Raises:
        ResourceError: all of it, with the sizes that there are.
    """
    require_accelerators(config, stages=stages)
    _require([demand for demand in demands_of(config) if demand.stage in stages])


def require_room_to_ask(config: EndpointConfig, *, settings: EvaluationConfig) -> None:
    """`require_room` for an evaluation alone."""
    require_engine(config)
    _require(list(demands_to_ask(config, settings=settings)))


def _require(demands: Sequence[Demand]) -> None:
    to_come = nodes_to_come()
    if to_come is None:  # better to ask and to wait than to refuse
        return
    nodes = [*alive_nodes(), *to_come]
    if missing := too_large(demands, nodes=nodes):
        raise ResourceError(_never(missing, nodes=nodes))


def too_large(demands: Sequence[Demand], *, nodes: Sequence[Nodes]) -> list[Demand]:
    """The demands that not one of the nodes could hold."""
    return [
        demand
        for demand in demands
        if not any(demand.fits_on(num_cpus=node.num_cpus, num_gpus=node.num_gpus) for node in nodes)
    ]


def _never(missing: Sequence[Demand], *, nodes: Sequence[Nodes]) -> str:
    asked = "; ".join(f"{demand.what}: {_size(demand)}" for demand in missing)
    sizes = {(node.num_gpus, node.num_cpus): node for node in nodes if node.num_cpus}
    have = ", or ".join(_size(sizes[key]) for key in sorted(sizes, reverse=True)[:4])
    settings = sorted({demand.setting for demand in missing if demand.setting})
    lower = f"lower num_cpus or num_gpus of {' and '.join(settings)}, or " if settings else ""
    return (
        f"no node of this cluster has, or will have, room for {asked}; "
        f"its nodes have {have or 'no CPUs'}; {lower}add a larger node type"
    )


def _size(of: Demand | Nodes) -> str:
    return _resources({"CPU": of.num_cpus, "GPU": of.num_gpus})


def _resources(resources: Mapping[str, float]) -> str:
    words = [
        f"{count:g} {name}{'s' if name in ('CPU', 'GPU') and count != 1 else ''}"
        for name, count in resources.items()
        if count or name == "CPU"
    ]
    return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Waits:
    """What has no room, what is free, and which nodes are on their way, in words."""

    asked: Mapping[str, int] = field(default_factory=dict)
    free: str = ""
    coming: tuple[str, ...] = ()

    def __str__(self) -> str:
        asked = " and ".join(f"{count} x {size}" for size, count in self.asked.items())
        coming = ", ".join(self.coming) or "no node is on its way"
        return f"waiting for room: {asked}; free now: {self.free}; {coming}"


def waits_of(status: Any) -> Waits:
    """Ray's ClusterStatus, as far as a waiting user needs it."""
    demands = status.resource_demands
    asked: Counter[str] = Counter()
    for demand in (*demands.placement_group_demand, *demands.ray_task_actor_demand):
        for some in demand.bundles_by_count:
            # In order of names, here and below: Ray's own order changes from one look to the next.
            bundle = {name: count for name, count in sorted(some.bundle.items()) if _is_shown(name)}
            if bundle:
                asked[_resources({"CPU": 0, **bundle} if "CPU" in bundle else bundle)] += some.count
    usage = sorted(status.cluster_resource_usage, key=lambda one: one.resource_name)
    free = ", ".join(
        f"{one.total - one.used:g} of {one.total:g} {one.resource_name}s"
        for one in usage
        if _is_shown(one.resource_name)
    )
    starting: Counter[str] = Counter()
    for launch in status.pending_launches:
        starting[launch.ray_node_type_name] += launch.count
    for node in status.pending_nodes:
        starting[node.ray_node_type_name] += 1
    coming = [f"{kind}: {count} starting" for kind, count in sorted(starting.items())]
    failed = {launch.ray_node_type_name: launch.details for launch in status.failed_launches}
    coming += [
        f"{kind} does not start: {one_line(why or 'no reason given', max_chars=120)}"
        for kind, why in sorted(failed.items())
    ]
    return Waits(asked=dict(asked), free=free or "nothing", coming=tuple(coming))


def _is_shown(resource: str) -> bool:
    return not resource.startswith(HIDDEN) and "_group_" not in resource


@contextmanager
def waits_said(say: Say) -> Iterator[None]:
    """Say what the cluster has no room for, as long as the block waits for it: once a minute.

    What is there at one look only, as when a process is about to start, is not said.
    """
    over = threading.Event()
    thread = threading.Thread(
        target=watch, args=(over,), kwargs={"say": say}, name="lorid-waits", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()


def watch(over: threading.Event, *, say: Say) -> None:
    """`waits_said` in its thread."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    address = ray.get_runtime_context().gcs_address
    num_looks, said_of = 0, Waits()
    while not over.wait(SECONDS_BETWEEN_LOOKS):
        try:
            waits = waits_of(get_cluster_status(address))
        except Exception:  # whoever needs the cluster finds out what is wrong with it
            continue
        num_looks = num_looks + 1 if waits.asked else 0
        is_new = waits.asked != said_of.asked or waits.coming != said_of.coming
        if num_looks > 1 and (is_new or num_looks % LOOKS_BETWEEN_LINES == 0):
            say(str(waits))
            said_of = waits
        elif not waits.asked:
            said_of = Waits()

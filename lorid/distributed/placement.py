"""How many trainings run at the same time, decided before anything starts; pure.

    placement = place(demand, now=alive_nodes(), to_come=nodes_to_come())
    announce(placement.why); threading.Semaphore(placement.at_once)

    room for all (now, or once an autoscaler has grown)   all at once
    fewer GPUs, and training.min_gpu_share allows it      all at once, each on a part of a GPU
    room for less, and nobody knows what may come         all at once: Ray starts what has room
    room for some                                         so many at once, the others after them
    room for none, ever                                   ResourceError

A training's workers get their places together or not at all (Ray's placement groups), so trainings
that wait for room hold none: whatever is chosen here, none can block another for ever.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lorid.errors import ResourceError

# Ray counts resources in ten-thousandths.
GRAIN = 10_000


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """So many nodes of one size."""

    num_cpus: float
    num_gpus: float
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What training asks for: `num_trainings` of `num_workers` each, every worker with these."""

    num_trainings: int
    num_workers: int
    num_cpus: float
    num_gpus: float
    min_gpu_share: float | None = None

    @property
    def worker(self) -> str:
        """In words, what a worker gets."""
        gpus = f" and {_number(self.num_gpus, 'GPU')}" if self.num_gpus else ""
        return f"{_number(self.num_cpus, 'CPU')}{gpus}"

    def trainings_on(self, nodes: Sequence[Nodes]) -> int:
        """How many trainings these nodes hold at once, at most all of them."""
        workers = sum(kind.count * self._workers_on(kind) for kind in nodes)
        return min(self.num_trainings, workers // self.num_workers)

    def _workers_on(self, node: Nodes) -> int:
        most = self.num_trainings * self.num_workers
        by_cpu = node.num_cpus / self.num_cpus if self.num_cpus else most
        by_gpu = node.num_gpus / self.num_gpus if self.num_gpus else most
        return math.floor(min(by_cpu, by_gpu, most) + 1 / GRAIN)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """So many trainings at once, each worker on `num_gpus`; `why` in one line."""

    at_once: int
    num_gpus: float
    why: str


def place(demand: Demand, *, now: Sequence[Nodes], to_come: Sequence[Nodes] | None) -> Placement:
    """Choose; `to_come` is what an autoscaler may reach in all, None where nobody knows.

    Raises:
        ResourceError: not even one training will ever fit.
    """
    here = demand.trainings_on(now)
    grown = here if to_come is None else max(here, demand.trainings_on(to_come))
    wanted = demand.num_trainings
    if here == wanted:
        return _placed(demand, wanted, "room for all" if wanted > 1 else "room for it")
    if grown == wanted:
        return _placed(demand, wanted, f"room for {here} now; the autoscaler is asked for the rest")
    shared = _share(demand, now=now, to_come=to_come)
    if shared is not None:
        return shared
    if to_come is None:
        why = f"room for {here} now; the others wait for more nodes, or for their turn"
        return _placed(demand, wanted, why)
    if grown:
        return _placed(demand, grown, f"{_held(now)} {_hint(demand)}")
    raise ResourceError(_never(demand, now=[*now, *to_come]))


def _placed(demand: Demand, at_once: int, why: str) -> Placement:
    workers = f" x {demand.num_workers} workers" if demand.num_workers > 1 else ""
    what = f"{_number(demand.num_trainings, 'training')}{workers} of {demand.worker}"
    how = "all at once" if at_once == demand.num_trainings else f"{at_once} at once"
    if demand.num_trainings == 1:
        how = "at once"
    elif at_once == 1:
        how = "one after the other"
    return Placement(at_once=at_once, num_gpus=demand.num_gpus, why=f"{what}: {how}, {why}")


def _share(
    demand: Demand, *, now: Sequence[Nodes], to_come: Sequence[Nodes] | None
) -> Placement | None:
    """All at once on the largest part of a GPU that allows it, or None.

    Only single workers share: two of one training on one GPU cannot talk by NCCL.
    """
    if demand.min_gpu_share is None or demand.num_gpus != 1 or demand.num_workers > 1:
        return None
    for sharers in range(2, int(1 / demand.min_gpu_share + 1 / GRAIN) + 1):
        part = math.floor(GRAIN / sharers) / GRAIN
        smaller = Demand(
            num_trainings=demand.num_trainings,
            num_workers=1,
            num_cpus=demand.num_cpus,
            num_gpus=part,
        )
        if any(
            smaller.trainings_on(nodes) == demand.num_trainings for nodes in (now, to_come or ())
        ):
            why = f"{_held(now)}; up to {sharers} share a GPU, as training.min_gpu_share allows"
            return _placed(smaller, demand.num_trainings, why)
    return None


def _hint(demand: Demand) -> str:
    if demand.num_gpus:
        return "is all there is; training.mode=fused would train all three at once on one worker's"
    return "is all there is; lower training.num_cpus, or add nodes, to have more at once"


def _never(demand: Demand, *, now: Sequence[Nodes]) -> str:
    most_cpus = max((node.num_cpus for node in now), default=0)
    most_gpus = max((node.num_gpus for node in now), default=0)
    if demand.num_gpus > most_gpus:
        missing = f"no node has or will have {_number(demand.num_gpus, 'GPU')}"
    elif demand.num_cpus > most_cpus:
        missing = f"no node has or will have {_number(demand.num_cpus, 'CPU')}"
    else:
        workers = sum(node.count * demand._workers_on(node) for node in now)
        missing = f"there is room for {workers} of the {demand.num_workers} at most"
    return (
        f"training.num_workers={demand.num_workers} of {demand.worker} each: {missing}; the "
        f"cluster has {_held(now)}; lower training.num_workers, num_gpus or num_cpus, or add nodes"
    )


def _held(nodes: Sequence[Nodes]) -> str:
    cpus = sum(node.count * node.num_cpus for node in nodes)
    gpus = sum(node.count * node.num_gpus for node in nodes)
    return f"{_number(cpus, 'CPU')}, {_number(gpus, 'GPU')}"


def _number(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"

"""What a run asks of a cluster, by stage: resources that one node must have for one process.

    for demand in demands_of(config):
        demand.what, demand.num_cpus, demand.num_gpus, demand.count

Every process starts when its place is there: an autoscaler brings nodes for what waits. Counts are
the most at once. The driver and Serve's controller and proxies ask for nothing, so that a head
node without logical CPUs holds them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lorid.config import EndpointConfig, RunConfig
from lorid.method.roles import Role
from lorid.sections import EngineConfig
from lorid.serving import EvaluationConfig

API_WORKER_CPUS = 0.5
INGRESS_CPUS = 0.1
DRIVER_CPUS = 0.1


@dataclass(frozen=True, kw_only=True)
class Demand:
    """`count` processes, each on one node that has so much; `setting` is what asks for it."""

    stage: str
    what: str
    setting: str = ""
    num_cpus: float
    num_gpus: float = 0
    count: int = 1

    def fits_on(self, *, num_cpus: float, num_gpus: float) -> bool:
        """Whether a node of that size can hold one of them."""
        return self.num_cpus <= num_cpus and self.num_gpus <= num_gpus


def engine_gpus(engine: EngineConfig) -> float:
    """The GPUs of one engine, all on one node: vLLM's parts are processes of one actor."""
    return engine.num_gpus * engine.tensor_parallel_size


def demands_of(config: RunConfig) -> Iterator[Demand]:
    """All that the stages of a run ask for."""
    yield _teacher(config)
    training = config.training
    yield Demand(
        stage="train",
        what=f"training ({training.mode})",
        setting="training",
        num_cpus=training.num_cpus,
        num_gpus=training.num_gpus,
        count=1 if training.mode == "fused" else len(Role),
    )
    yield from demands_to_ask(config, settings=config.evaluation)


def demands_to_ask(config: EndpointConfig, *, settings: EvaluationConfig) -> Iterator[Demand]:
    """What an evaluation asks for: an endpoint, or engines alone."""
    if settings.mode == "offline":
        yield Demand(
            stage="evaluate",
            what="student's engine",
            setting="engine",
            num_cpus=config.engine.num_cpus,
            num_gpus=engine_gpus(config.engine),
            count=settings.num_engines,
        )
        return
    yield Demand(stage="evaluate", what="ingress", num_cpus=INGRESS_CPUS)
    yield from _engines(config)


def _engines(config: EndpointConfig) -> Iterator[Demand]:
    serving = config.serving
    if serving.roles_apart:
        yield Demand(
            stage="evaluate",
            what="mutual feedback",
            num_cpus=DRIVER_CPUS,
            count=serving.num_drivers,
        )
    yield Demand(
        stage="evaluate",
        what="role's engine" if serving.roles_apart else "student's engine",
        setting="engine",
        num_cpus=config.engine.num_cpus,
        num_gpus=engine_gpus(config.engine),
        count=serving.max_replicas * (len(Role) if serving.roles_apart else 1),
    )


def _teacher(config: RunConfig) -> Demand:
    teacher = config.teacher
    if teacher.kind == "vllm":
        return Demand(
            stage="knowledge",
            what="teacher's engine",
            setting="teacher.engine",
            num_cpus=teacher.engine.num_cpus,
            num_gpus=engine_gpus(teacher.engine),
            count=teacher.max_engines or teacher.num_engines,
        )
    workers = teacher.api.num_workers if teacher.api else 1
    return Demand(
        stage="knowledge", what="worker of the API", num_cpus=API_WORKER_CPUS, count=workers
    )

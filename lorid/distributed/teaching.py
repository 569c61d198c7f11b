"""The teacher on a cluster: one desk actor, and the workers that Ray Data feeds.

    desk = start_desk(config)
    answered = rows.map_batches(TeacherWorker, fn_constructor_args=(..., desk), ...)

The desk (ledger, limits, money) is one actor on the driver's node, started again with all that the
ledger holds when its process dies. Workers keep many requests in flight on one event loop, across
the batches that Ray Data gives them at the same time; a batch that is run again after a crash finds
what was answered in the ledger. The key for the API is read by the driver and travels as a
`SecretStr`, which prints as stars; nodes need not have it, and no config or record holds it.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from pydantic import SecretStr
from ray.exceptions import RayError
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lorid.artifacts.store import open_store
from lorid.config import RunConfig, TeacherConfig
from lorid.distributed.failures import root_cause
from lorid.distributed.inputs import teacher_inputs
from lorid.errors import LoridError
from lorid.method.problems import Problem
from lorid.teacher.asking import Manner, ask_problem
from lorid.teacher.base import Teacher
from lorid.teacher.desk import Answer, Desk, DeskPolicy, DeskStats, Stop, Wanted
from lorid.teacher.failures import Failure
from lorid.teacher.ledger import Ledger, Stored, merge_ledger
from lorid.teacher.limiter import Limiter, Limits
from lorid.teacher.window import Window

VLLM_PERMIT_S = 3600.0
BATCH_PERMIT_S = 3 * 24 * 3600.0
MAX_CONNECTIONS = 1000
"""Of one client; more in flight take more workers."""
METRICS = ("num_responses", "num_reused", "num_in_flight", "num_failed", "num_throttled",
           "input_tokens", "output_tokens", "spent")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How many workers there are, and how many requests and rows each has under way."""

    min_workers: int
    max_workers: int
    slots_each: int
    limits: Limits
    permit_s: float
    rows_per_slot: int = 3

    def batches_each(self, batch_rows: int) -> int:
        """Batches at once for each worker: rows for all slots, and twice that many in waiting.

        A batch ends with its slowest row; the others must fill the slots meanwhile.
        """
        return max(2, -(-self.rows_per_slot * self.slots_each // batch_rows))


def pool_of(teacher: TeacherConfig) -> Pool:
    """The workers that a teacher of this kind has."""
    if teacher.kind == "vllm":
        # The engine queues by itself: twice its size keeps it full.
        slots, most = 2 * teacher.engine.max_num_seqs, teacher.max_engines or teacher.num_engines
        return Pool(
            min_workers=teacher.num_engines,
            max_workers=most,
            slots_each=slots,
            limits=Limits(max_in_flight=slots * most),
            permit_s=VLLM_PERMIT_S,
        )
    assert teacher.api is not None
    api = teacher.api
    if teacher.kind == "batch":
        # A second batch fills while the first is worked off.
        slots = 2 * teacher.batch.max_requests
        return Pool(
            min_workers=1,
            max_workers=1,
            slots_each=slots,
            limits=Limits(max_in_flight=slots),
            permit_s=BATCH_PERMIT_S,
            rows_per_slot=1,
        )
    workers = min(api.num_workers, api.max_in_flight)
    workers = max(workers, -(-api.max_in_flight // MAX_CONNECTIONS))
    return Pool(
        min_workers=workers,
        max_workers=workers,
        slots_each=-(-api.max_in_flight // workers),
        limits=Limits(
            requests_per_minute=api.requests_per_minute,
            tokens_per_minute=api.tokens_per_minute,
            requests_per_second=api.requests_per_second,
            max_in_flight=api.max_in_flight,
        ),
        permit_s=2 * api.timeout_s + 60,
    )


def policy_of(config: RunConfig) -> DeskPolicy:
    """How this run's desk decides."""
    teacher, pool = config.teacher, pool_of(config.teacher)
    policy = DeskPolicy(
        num_workers=pool.max_workers,
        max_new_tokens=teacher.sampling.max_new_tokens,
        prices=teacher.prices,
        is_batch=teacher.kind == "batch",
        max_cost=teacher.max_cost,
        permit_s=pool.permit_s,
        give_up_after_s=teacher.api.give_up_after_s if teacher.api else 300.0,
    )
    return policy


class DeskActor:
    """A `Desk` as an actor; its methods are the desk's."""

    def __init__(self, config_json: str) -> None:
        config = RunConfig.model_validate_json(config_json)
        ledger = Ledger.opened(open_store(config.store), name=config.name)
        limiter = Limiter(pool_of(config.teacher).limits, clock=time.monotonic)
        self.desk = Desk(ledger=ledger, limiter=limiter, policy=policy_of(config))
        tags = {"run": config.name}
        self.gauges = {
            name: Gauge(f"lorid_teacher_{name}", description=f"teacher: {name}", tag_keys=("run",))
            for name in METRICS
        }
        for gauge in self.gauges.values():
            gauge.set_default_tags(tags)

    async def join(self, worker: str) -> Answer:
        """See `Desk.join`."""
        return self.desk.join(worker)

    async def acquire(self, worker: str, wanted: Sequence[Wanted]) -> Answer:
        """See `Desk.acquire`."""
        return await self.desk.acquire(worker, wanted)

    async def settle(self, worker: str, responses: Sequence[Stored]) -> Answer:
        """See `Desk.settle`."""
        return await self.desk.settle(worker, responses)

    async def fail(self, worker: str, key: str, failure: Failure | None) -> Answer:
        """See `Desk.fail`."""
        return await self.desk.fail(worker, key, failure)

    async def stop(self, stop: Stop) -> None:
        """See `Desk.stop`."""
        self.desk.stop(stop)

    async def read_stats(self) -> DeskStats:
        """See `Desk.read_stats`; also what Ray's metrics show."""
        stats = self.desk.read_stats()
        for name, gauge in self.gauges.items():
            gauge.set(float(getattr(stats, name)))
        return stats


def start_desk(config: RunConfig) -> Any:
    """The desk's actor, on this node: a store in a folder is here.

    Raises:
        ArtifactError: the ledger cannot be read.
    """
    merge_ledger(open_store(config.store), config.name)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(DeskActor)
    desk = actor.options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here
    ).remote(config.model_dump_json())
    try:
        ray.get(desk.read_stats.remote())
    except RayError as error:
        raise root_cause(error) from error
    return desk


class RemoteDesk:
    """The desk's actor as `DeskCalls`."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    async def join(self, worker: str) -> Answer:
        """See `Desk.join`."""
        return await self.actor.join.remote(worker)

    async def acquire(self, worker: str, wanted: Sequence[Wanted]) -> Answer:
        """See `Desk.acquire`."""
        return await _result(self.actor.acquire.remote(worker, wanted))

    async def settle(self, worker: str, responses: Sequence[Stored]) -> Answer:
        """See `Desk.settle`."""
        return await _result(self.actor.settle.remote(worker, responses))

    async def fail(self, worker: str, key: str, failure: Failure | None) -> Answer:
        """See `Desk.fail`."""
        return await _result(self.actor.fail.remote(worker, key, failure))


async def _result(call: Any) -> Answer:
    try:
        return await call
    except RayError as error:
        cause = root_cause(error)
        raise (cause if isinstance(cause, LoridError) else error) from error


def make_teacher(config: RunConfig, *, key: SecretStr) -> Teacher:
    """The teacher that the config names."""
    teacher = config.teacher
    if teacher.kind == "vllm":
        from lorid.engines.teaching import VllmTeacher

        return VllmTeacher(teacher, seed=config.seed)
    from lorid.teacher.api import ApiTeacher

    assert teacher.api is not None
    if teacher.kind == "batch":
        from lorid.teacher.batch import BatchTeacher, Journal

        journal = Journal(open_store(config.store), name=config.name)
        return BatchTeacher(teacher, key=key, identity=teacher_inputs(config), journal=journal)
    return ApiTeacher(teacher.api, sampling=teacher.sampling, key=key)


def manner_of(config: RunConfig, *, template: str) -> Manner:
    """How problems are put; what was set aside gets as many asks again for each retry."""
    teacher = config.teacher
    return Manner(
        template=template,
        temperature=teacher.sampling.temperature,
        seed=config.seed,
        max_asks=teacher.max_asks * (1 + teacher.retry_rejects),
        gate=teacher.gate.limits(),
        explains=teacher.explain_rejects,
    )


class TeacherWorker:
    """Asks for batches of rows, several at once; a problem in, its source with the outcome out."""

    def __init__(self, config_json: str, template: str, key: SecretStr, desk: Any) -> None:
        self.config = RunConfig.model_validate_json(config_json)
        self.manner = manner_of(self.config, template=template)
        self.desk = RemoteDesk(desk)
        self.teacher = make_teacher(self.config, key=key)
        self.opening: asyncio.Task[Window] | None = None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            if self.opening is None:
                self.opening = asyncio.ensure_future(self._open())
            window = await self.opening
            # All of them end, also when the stage stops: what is in flight is stored first.
            answers = await asyncio.gather(
                *(self._ask(window, json.loads(row)) for row in batch["problem"])
            )
        except LoridError as error:
            answers = [_failure(error)] * len(batch["problem"])
        return {"source": batch["source"], "answer": [json.dumps(answer) for answer in answers]}

    async def _open(self) -> Window:
        api = self.config.teacher.api
        worker = ray.get_runtime_context().get_actor_id()
        answer = await self.desk.join(worker or "driver")
        return Window(
            desk=self.desk,
            teacher=self.teacher,
            worker=worker or "driver",
            policy=policy_of(self.config),
            identity=teacher_inputs(self.config),
            max_tries=api.max_tries if api else 1,
            hedge_after_s=api.hedge_after_s if api and self.config.teacher.kind == "api" else None,
            num_slots=answer.num_slots,
            stopped=answer.stop,
        )

    async def _ask(self, window: Window, row: Mapping[str, str]) -> dict[str, Any]:
        problem = Problem.from_row(row)
        try:
            outcome = await ask_problem(problem, respond=window.respond, manner=self.manner)
        except LoridError as error:
            return _failure(error)
        return outcome.to_row()


def _failure(error: LoridError) -> dict[str, Any]:
    # Ray Data loses the class of what is raised in a worker: the driver raises it instead.
    return {"failed": type(error).__name__, "message": str(error)}

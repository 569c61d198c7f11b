"""The knowledge stage: Ray Data runs the teacher over the training problems.

    sources --> [ Ray Data: TeacherWorker actors ] --> kept | set aside
                     | ^  keys, responses        |
                     v |  permits, slots         v
                  [ desk actor: ledger, limits, money ]

Text that cannot be used is asked for again, differently, then set aside with its reason; it never
fails the stage. When the stage stops (no money left, the key refused, nothing succeeds) what is in
flight is awaited and stored, nothing is published, and the next run goes on from the ledger.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import ray
from pydantic import SecretStr
from ray.exceptions import RayError

from lorid import errors
from lorid.config import RunConfig
from lorid.distributed.cluster import only_errors
from lorid.distributed.demands import API_WORKER_CPUS, engine_gpus
from lorid.distributed.progress import Progress
from lorid.distributed.room import waits_said
from lorid.distributed.teaching import TeacherWorker, pool_of, start_desk
from lorid.errors import ConfigError, TeacherError
from lorid.method.knowledge import TEACHER_TEMPLATE
from lorid.method.sources import SourceGroups
from lorid.spool import Spool
from lorid.teacher.api import NO_KEY, read_key
from lorid.teacher.desk import DeskStats, Stop
from lorid.teacher.prices import projected

SECONDS_BETWEEN_STATS = 1.0
DRAIN_S = 60.0
_OUT = ("source", "answer")


@dataclass(frozen=True, kw_only=True)
class KnowledgeResult:
    """What the teacher gave: rules by source question, and rows that were set aside."""

    kept: Mapping[str, Sequence[str]]
    rejects: Sequence[Mapping[str, Any]]
    num_generated_tokens: int
    num_retried: int
    stats: DeskStats
    caught: Mapping[str, int]
    currency: str | None = None

    def details(self) -> dict[str, Any]:
        """Counts for the record."""
        reasons = Counter(reject["reason"].split(":")[0] for reject in self.rejects)
        return {
            "num_problems": len(self.kept) + len(self.rejects),
            "num_kept": len(self.kept),
            "num_rejected": len(self.rejects),
            "num_retried": self.num_retried,
            "num_generated_tokens": self.num_generated_tokens,
            "num_responses": self.stats.num_responses,
            "num_reused": self.stats.num_reused,
            "spent": round(self.stats.spent, 6),
            "currency": self.currency,
            "rejected_because": dict(reasons),
            "caught": dict(self.caught),
        }


def read_template(config: RunConfig) -> str:
    """The teacher's prompt: lorid's own, or the file that the config names, checked once."""
    if config.teacher.template is None:
        return TEACHER_TEMPLATE
    try:
        template = Path(config.teacher.template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"teacher.template: cannot read the file: {error}") from error
    for name in ("{question}", "{rationale}"):
        if name not in template:
            raise ConfigError(f"teacher.template: {name} does not occur in it")
    return template


def generate_knowledge(config: RunConfig, groups: SourceGroups) -> KnowledgeResult:
    """Knowledge for every source question, by the configured teacher on the cluster.

    Raises:
        ConfigError: the teacher cannot be loaded, or its key is missing.
        TeacherError: it refuses, has died, costs more than it may, or gave nothing of use.
    """
    api = config.teacher.api
    key = read_key(api) if api and config.teacher.kind != "vllm" else SecretStr(NO_KEY)
    template = read_template(config)
    only_errors("ray.data")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    desk = start_desk(config)
    try:
        answered = _answered(config, groups, template=template, key=key, desk=desk)
        with (
            Board(desk, total=len(groups), config=config) as board,
            waits_said(board.progress.say),
        ):
            blocks = answered.iter_batches(batch_size=None, batch_format="pyarrow")
            result = _collect(blocks, groups=groups, board=board)
    except RayError as error:
        cause = " ".join(str(error).split())[-300:]
        raise TeacherError(f"the teacher's workers failed: {cause}; run again to resume") from error
    finally:
        with suppress(Exception):
            ray.kill(desk)
    if not result.kept:
        reasons = ", ".join(result.details()["rejected_because"])
        raise TeacherError(
            f"the teacher gave no usable knowledge for {len(groups)} problems ({reasons}); "
            "check teacher.model, its family and max_new_tokens"
        )
    return result


class _Rows(Sequence[dict[str, str]]):
    """What Ray Data reads once, from first to last: each row is made when it is read."""

    def __init__(self, groups: SourceGroups) -> None:
        self.groups, self.source_ids = groups, list(groups.source_ids)

    def __getitem__(self, index: Any) -> Any:
        source_id = self.source_ids[index]
        problem = self.groups[source_id].source
        return {"source": source_id, "problem": json.dumps(problem.to_row())}

    def __len__(self) -> int:
        return len(self.source_ids)


def _answered(
    config: RunConfig, groups: SourceGroups, *, template: str, key: SecretStr, desk: Any
) -> Any:
    teacher, pool = config.teacher, pool_of(config.teacher)
    is_vllm = teacher.kind == "vllm"
    batch_rows = teacher.batch_rows
    if teacher.kind == "batch":
        # Few and large: each batch of rows at work is a thread of the worker.
        batch_rows = max(batch_rows, -(-pool.slots_each // 32))
    num_blocks = max(1, -(-len(groups) // batch_rows))
    batches = min(pool.batches_each(batch_rows), num_blocks + 1)
    rows: Any = _Rows(groups)
    engine = teacher.engine
    return ray.data.from_items(rows, override_num_blocks=num_blocks).map_batches(
        TeacherWorker,
        fn_constructor_args=(config.model_dump_json(), template, key, desk),
        batch_size=batch_rows,
        compute=ray.data.ActorPoolStrategy(
            min_size=pool.min_workers,
            max_size=pool.max_workers,
            # Ray lets the pool grow at 1.75 times the calls that run at once.
            max_tasks_in_flight_per_actor=2 * batches,
            max_concurrent_calls_per_actor=batches,
        ),
        num_cpus=engine.num_cpus if is_vllm else API_WORKER_CPUS,
        num_gpus=engine_gpus(engine) if is_vllm else 0,
    )


class Board:
    """The progress line, from the rows that came back and from what the desk counts."""

    def __init__(self, desk: Any, *, total: int, config: RunConfig) -> None:
        self.desk, self.total = desk, total
        self.prices = config.teacher.prices
        self.progress = Progress("knowledge")
        self.done = self.rejected = 0
        self.stats: DeskStats = DeskStats()
        self.started = time.monotonic()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="lorid-board", daemon=True)

    def __enter__(self) -> Self:
        self.progress.__enter__()
        self.progress.update("teacher", done=0, total=self.total)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(timeout=5)
        with suppress(RayError):
            self.read()
        self._show()
        self.progress.__exit__(None, None, None)

    def read(self) -> DeskStats:
        """The desk's counts of now."""
        stats: Any = ray.get(self.desk.read_stats.remote(), timeout=30)
        self.stats = cast("DeskStats", stats)
        return self.stats

    def drain(self, stop: Stop) -> None:
        """Send nothing any more and wait until what is in flight is stored."""
        ends_at = time.monotonic() + DRAIN_S
        with suppress(RayError):
            ray.get(self.desk.stop.remote(stop))
            while self.read().num_in_flight and time.monotonic() < ends_at:
                time.sleep(0.1)

    def _watch(self) -> None:
        while not self.over.wait(SECONDS_BETWEEN_STATS):
            with suppress(Exception):  # the stage itself finds out what is wrong
                self.read()
            self._show()

    def _show(self) -> None:
        self.progress.update("teacher", done=self.done, total=self.total, note=self._note())

    def _note(self) -> str:
        stats, seconds = self.stats, max(time.monotonic() - self.started, 1e-9)
        parts = [
            f"{self.rejected} set aside",
            f"{stats.num_reused} reused",
            f"{stats.num_in_flight} in flight",
            f"{stats.output_tokens / seconds:.0f} tokens/s",
        ]
        if stats.num_failed:
            parts.append(f"{stats.num_failed} failed")
        if self.prices is not None:
            parts.append(f"{stats.spent:.2f}{self._projected()} {self.prices.currency}")
        return ", ".join(parts)

    def _projected(self) -> str:
        if not 0 < self.done < self.total or not self.stats.num_responses:
            return ""
        whole = projected(spent=self.stats.spent, num_done=self.done, num_all=self.total)
        return f" of about {whole:.2f}"


def _collect(blocks: Any, *, groups: SourceGroups, board: Board) -> KnowledgeResult:
    kept = Spool[Sequence[str]](dump=_dumped, load=json.loads)
    rejects: list[dict[str, Any]] = []
    num_tokens = num_retried = 0
    caught: Counter[str] = Counter()
    for source_id, answer in _rows_of(blocks):
        if "failed" in answer:
            board.drain(Stop(error=answer["failed"], message=answer["message"]))
            raise getattr(errors, answer["failed"], TeacherError)(answer["message"])
        num_tokens += answer["num_tokens"]
        num_retried += answer["num_asks"] > 1
        caught.update(answer["caught"])
        if answer["reason"] is None:
            kept[source_id] = answer["rules"]
        else:
            group = groups[source_id]
            counts = {"reason": answer["reason"], "num_problems": group.num_problems}
            rejects.append({**group.source.to_row(), **counts})
        board.done, board.rejected = len(kept) + len(rejects), len(rejects)
    # Ray Data hands blocks back as they finish; the artifact must not depend on that order.
    rejects.sort(key=lambda reject: reject["problem_id"])
    return KnowledgeResult(
        kept=kept,
        rejects=rejects,
        num_generated_tokens=num_tokens,
        num_retried=num_retried,
        stats=board.read(),
        caught=caught,
        currency=board.prices.currency if board.prices else None,
    )


def _rows_of(blocks: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for block in blocks:
        for source_id, answer in zip(*(block[name].to_pylist() for name in _OUT), strict=True):
            yield source_id, json.loads(answer)


def _dumped(rules: Sequence[str]) -> bytes:
    return json.dumps(rules).encode()

"""The knowledge stage with a teacher that answers at once: what is left is lorid's own cost.

Nothing of the stage is replaced but the teacher (`InstantTeacher`, a fake): data from a JSONL file,
prepare, Ray Data, workers, windows, the desk's actor with limits and ledger, the gate, Parquet and
the published artifact. `benchmarks/scaling.py` runs it and keeps the figures.
"""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from pydantic import SecretStr

from lorid.artifacts.enriched import read_enriched, write_enriched
from lorid.artifacts.records import Record, fetch
from lorid.artifacts.shards import shard_keys
from lorid.artifacts.store import Sweepable, open_store
from lorid.config import RunConfig
from lorid.distributed import knowledge
from lorid.distributed.pipeline import run_pipeline
from lorid.distributed.preparation import iter_split, read_groups
from lorid.distributed.teaching import TeacherWorker
from lorid.jsonl import write_jsonl
from lorid.method.knowledge import TEACHER_TEMPLATE, parse_knowledge
from lorid.method.problems import problem_from_row
from lorid.method.sources import join, source_of
from lorid.presets import demo
from lorid.spool import Spool
from lorid.teacher.asking import Manner, ask_problem
from lorid.teacher.base import Reply, TeacherRequest, Usage
from lorid.teacher.desk import Desk, DeskPolicy
from lorid.teacher.ledger import Ledger, folder_of
from lorid.teacher.limiter import Limiter, Limits
from lorid.teacher.window import Window

SECONDS_BETWEEN_SAMPLES = 2.0
MIB = 1024**2
RULES = (
    "To find a total, add the amounts of all of its parts.",
    "What is left of an amount is the whole amount without the part that was taken away.",
    "The value of several equal things is the value of a single one times how many there are.",
)
TEXT = json.dumps({"output": RULES})


class InstantTeacher:
    """A fake: gives the same good rules to every request, at once."""

    async def ask(self, request: TeacherRequest) -> Reply:
        """See `Teacher.ask`."""
        usage = Usage(input_tokens=len(request.prompt) // 4, output_tokens=len(TEXT) // 4)
        return Reply(text=TEXT, finish_reason="stop", usage=usage, model="instant")

    async def aclose(self) -> None:
        """See `Teacher.aclose`."""


class PromptTeacher(InstantTeacher):
    """A fake that takes half a second for each request."""

    async def ask(self, request: TeacherRequest) -> Reply:
        """See `Teacher.ask`."""
        await asyncio.sleep(0.5)
        return await super().ask(request)


class InstantWorker(TeacherWorker):
    """The stage's worker with the fake teacher."""

    def __init__(self, config_json: str, template: str, key: SecretStr, desk: Any) -> None:
        super().__init__(config_json, template, key, desk)
        self.teacher = InstantTeacher()


def problem_rows(num: int, *, start: int = 0) -> Iterator[dict[str, str]]:
    """Rows as GSM8K's, as long as the average of its training split (235 and 290 characters)."""
    for number in range(start + 21, start + num + 21):
        yield {
            "question": f"A farm far out in the hills sells {number} crates of pears on the market "
            "of the town and keeps 7 crates for itself, which it puts into the cellar for the long "
            "winter months. How many crates of pears were there before the market day, all told?",
            "answer": f"The farm sold {number} crates of pears on the market of the town.\n"
            "It kept 7 crates for itself, and these were a part of all crates before that day.\n"
            f"So before the market day there were {number} + 7 = <<{number}+7={number + 7}>>"
            f"{number + 7} crates of pears on the farm, all told.\n#### {number + 7}",
        }


def make_config(folder: Path, *, num: int, store: str | None, in_flight: int, workers: int) -> Any:
    """A run over `num` problems in the folder's files."""
    for name, some in (("train", problem_rows(num)), ("test", problem_rows(1, start=10**9))):
        with (folder / f"{name}.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in some)
    config = demo().model_dump(mode="json")
    config["name"] = "scaling"
    config["store"] = store or str(folder / "store")
    files = {name: str(folder / f"{name}.jsonl") for name in ("train", "test")}
    config["data"] = {"source": "jsonl", "num_train": None, "num_test": None, **files}
    api = {"model": "instant", "api_key_env": None, "base_url": "http://127.0.0.1:9/v1"}
    api |= {"max_in_flight": in_flight, "num_workers": workers}
    config["teacher"] |= {"kind": "api", "api": api}
    return RunConfig.model_validate(config)


class Sampler:
    """Memory of the driver and of its children by what they are, every two seconds."""

    def __init__(self) -> None:
        self.samples: list[dict[str, float]] = []
        self.over = threading.Event()
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Sampler":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.over.wait(SECONDS_BETWEEN_SAMPLES):
            self.samples.append(self.sample())

    def sample(self) -> dict[str, float]:
        """MiB that belong to each process alone: what is shared (the object store) is not in it."""
        found = {"at_s": round(time.monotonic() - self.began, 1)}
        driver = psutil.Process()
        for process in [driver, *driver.children(recursive=True)]:
            try:
                title = " ".join(process.cmdline()[:1])
                name = _part(title) if process != driver else "driver"
                if name is not None:
                    own = process.memory_full_info().uss / MIB
                    found[name] = round(found.get(name, 0) + own, 1)
            except psutil.Error:
                continue
        return found

    def figures(self) -> dict[str, Any]:
        """The peak of each part, and a dozen samples over the run."""
        names = sorted({name for sample in self.samples for name in sample} - {"at_s"})
        step = max(1, len(self.samples) // 12)
        peaks = {name: max(one.get(name, 0) for one in self.samples) for name in names}
        return {"peak_mib": peaks, "samples_mib": self.samples[::step]}


def _part(title: str) -> str | None:
    for mark, name in (("DeskActor", "desk"), ("InstantWorker", "workers"), ("raylet", "raylet")):
        if mark in title:
            return name
    return None


def run_stage(folder: Path, *, num: int, store: str | None, in_flight: int, workers: int) -> Any:
    """Prepare and teach `num` problems; asserts that each one came out with its knowledge."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    knowledge.TeacherWorker = InstantWorker  # the one thing that is not the real stage
    config = make_config(folder, num=num, store=store, in_flight=in_flight, workers=workers)
    began, cpu = time.monotonic(), time.process_time()
    with Sampler() as prepared:
        run_pipeline(config, stages=("prepare",))
    prepare_s = time.monotonic() - began
    with Sampler() as sampler:
        record = run_pipeline(config, stages=("knowledge",))["knowledge"]
    check(record, config, num=num, into=folder / "fetched")
    return {
        "problems": num,
        "in_flight": in_flight,
        "workers": workers,
        "prepare_seconds": round(prepare_s, 1),
        "prepare_peak_mib": prepared.figures()["peak_mib"].get("driver"),
        "stage_seconds": record.seconds,
        "rows_per_s": round(num / record.seconds),
        "driver_cpu_seconds": round(time.process_time() - cpu, 1),
        "memory": sampler.figures(),
        "ledger": open_ledger(config),
    }


def check(record: Record, config: RunConfig, *, num: int, into: Path) -> None:
    """Every problem is there once, in its order, with the rules."""
    assert record.details["num_kept"] == record.details["num_rows"] == num, record.details
    fetch(open_store(config.store), record, into=into)
    numbers = []
    for one in read_enriched(into):
        assert one.knowledge == RULES
        numbers.append(int(one.problem.answer))
    assert numbers == list(range(28, num + 28))


def open_ledger(config: RunConfig) -> Mapping[str, Any]:
    """How long the next run's desk takes to open, in a process of its own by now."""
    store = open_store(config.store)
    shards = shard_keys(store, folder_of(config.name))
    before = psutil.Process().memory_full_info().uss
    began = time.monotonic()
    ledger = Ledger.opened(store, name=config.name)
    seconds = time.monotonic() - began
    grown = psutil.Process().memory_full_info().uss - before
    return {
        "shards": len(shards),
        "responses": len(ledger.lines),
        "open_seconds": round(seconds, 2),
        "responses_per_s": round(len(ledger.lines) / seconds),
        "grown_mib": round(grown / MIB, 1),
    }


class Timed:
    """Seconds on the clock and of the processor that a block takes; others share the cores."""

    def __enter__(self) -> "Timed":
        self.wall_s, self.cpu_s = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.monotonic() - self.wall_s
        self.cpu_s = time.process_time() - self.cpu_s

    def figures(self, num: int) -> dict[str, float]:
        """Of all, and the processor's share for each of `num`."""
        each = round(self.cpu_s / num * 1e6, 1)
        return {"wall_s": round(self.wall_s, 1), "cpu_s": round(self.cpu_s, 1), "cpu_us_each": each}


def group_and_join(folder: Path, *, num: int) -> dict[str, Any]:
    """What the driver does around the teacher: group, keep what comes back, join, write Parquet."""
    problems = map(problem_from_row, problem_rows(num))
    write_jsonl(folder / "train.jsonl", (problem.to_row() for problem in problems))
    process = psutil.Process()
    before = process.memory_full_info().uss
    with Timed() as grouped:
        groups = read_groups(folder)
    kept = Spool[list[str]](dump=lambda rules: json.dumps(rules).encode(), load=json.loads)
    with Timed() as keeping:
        for source_id in groups.source_ids:
            kept[source_id] = [*RULES, source_id]
    with Timed() as joined:
        rows = join(iter_split(folder, "train"), knowledge=kept)
        written = write_enriched(folder / "out", rows)
    grown = process.memory_full_info().uss - before
    assert written == len(groups) == num
    for one in read_enriched(folder / "out"):
        assert one.knowledge[-1] == source_of(one.problem)
    return {
        "problems": num,
        "group": grouped.figures(num),
        "keep": keeping.figures(num),
        "join_and_write": joined.figures(num),
        "parquet_files": len(list((folder / "out" / "data").iterdir())),
        "grown_mib": round(grown / MIB, 1),
    }


async def ask_here(
    store: Sweepable, *, num: int, in_flight: int, teacher: Any = None
) -> dict[str, Any]:
    """A worker's window, the gate, the desk and the ledger in this one process, without Ray."""
    limiter = Limiter(Limits(max_in_flight=in_flight), clock=time.monotonic)
    ledger = Ledger.opened(store, name="here")
    desk = Desk(ledger=ledger, limiter=limiter, policy=DeskPolicy())
    window = Window(
        desk=desk, teacher=teacher or InstantTeacher(), worker="w", policy=desk.policy,
        identity={"model": "instant"}, num_slots=desk.join("w").num_slots,
    )  # fmt: skip
    manner = Manner(template=TEACHER_TEMPLATE, temperature=0.2, seed=1, max_asks=3)
    problems = map(problem_from_row, problem_rows(num))
    num_kept = 0

    async def work() -> None:
        nonlocal num_kept
        for problem in problems:
            outcome = await ask_problem(problem, respond=window.respond, manner=manner)
            num_kept += outcome.rules == RULES

    with Timed() as asked:
        await asyncio.gather(*(work() for _ in range(3 * in_flight)))
    with Timed() as judged:
        for problem in map(problem_from_row, problem_rows(num)):
            assert parse_knowledge(TEXT, problem=problem).rules == RULES
    stats = desk.read_stats()
    assert num_kept == stats.num_responses + stats.num_reused == num
    return {"in_flight": in_flight, "all": asked.figures(num), "gate": judged.figures(num)}

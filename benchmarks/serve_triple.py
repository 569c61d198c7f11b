"""The demo's triple, its evaluation problems, and one engine that holds it: what all parts share.

    triple = demo_triple("lorid-demo/store", folder)
    async with engine_of(triple) as engine:
        sampled = await write(engine, triple, question, Ask(role=role, round_index=0))

`make demo` has made the store. A text's seed is that of the endpoint, so whoever draws it gets the
same words: that is what lets contenders be compared on the same attempts.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest, resolve_triple, role_folders
from lorid.config import EndpointConfig, SamplingConfig
from lorid.engines.base import GenerationRequest
from lorid.engines.vllm import VllmEngine
from lorid.errors import LoridError
from lorid.jsonl import read_jsonl
from lorid.method.feedback import Ask, Sampled, generation_seed
from lorid.method.roles import Role

NAME = "triple"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem of the evaluation's split, with the first knowledge that was logged for it."""

    problem_id: str
    question: str
    gold: str
    knowledge: str


def evaluation_log(store_uri: str, folder: Path) -> Path:
    """The attempts that the demo's evaluation has logged, as a file in `folder`."""
    store = open_store(store_uri)
    evaluation = list_records(store, kind="evaluation")[-1]
    return fetch(store, evaluation, into=folder / "evaluation") / "attempts.jsonl"


@dataclass(frozen=True, kw_only=True)
class DemoTriple:
    """The triple on this disk, with its own defaults and the problems that it was graded on."""

    address: str
    config: EndpointConfig
    folders: Mapping[Role, Path]
    problems: Sequence[Problem]


def demo_triple(store_uri: str, folder: Path, *, num_problems: int) -> DemoTriple:
    """The newest triple of the demo's run, into `folder`; at most so many of its problems."""
    try:
        store = open_store(store_uri)
        record = resolve_triple(store, "demo")
        logged = evaluation_log(store_uri, folder)
    except (LoridError, IndexError) as error:
        raise SystemExit(
            f"no demo in {store_uri} ({error}): run `make demo`, or give --store"
        ) from (error)
    rows = [row for _, row in read_jsonl(logged)][:num_problems]
    return DemoTriple(
        address=record.address,
        config=read_manifest(store, record).endpoint(store=store.uri),
        folders=role_folders(fetch(store, record, into=folder / "triple")),
        problems=[
            Problem(
                problem_id=row["problem_id"],
                question=row["question"],
                gold=row["gold"],
                knowledge=row["knowledge"][0]["text"],
            )
            for row in rows
        ],
    )


@asynccontextmanager
async def engine_of(
    triple: DemoTriple,
    *,
    sampling: SamplingConfig | None = None,
) -> AsyncIterator[VllmEngine]:
    """One engine with the triple's three adapters, warm."""
    config = triple.config
    held = VllmEngine(
        student=config.student,
        sampling=config.sampling,
        engine=config.engine,
        seed=config.seed,
        num_triples=1,
    )
    await held.load(NAME, adapters=triple.folders, sampling=sampling or config.sampling)
    try:
        await held.probe(NAME)
        yield held
    finally:
        await held.aclose()


async def write(engine: VllmEngine, triple: DemoTriple, question: str, ask: Ask) -> Sampled:
    """One text, as the endpoint would draw it."""
    completion = await engine.generate(
        GenerationRequest(
            question=question,
            role=ask.role,
            triple=NAME,
            knowledge=ask.knowledge,
            seed=generation_seed(triple.config.seed, question=question, ask=ask),
        )
    )
    return Sampled(
        text=completion.text,
        truncated=completion.finish_reason == "length",
        num_tokens=completion.num_tokens,
        num_prompt_tokens=completion.num_prompt_tokens,
    )


class Counted:
    """Counts prompt tokens of all that an engine is asked from now on: it stands in its way."""

    def __init__(self, engine: Any) -> None:
        self.generate = engine.generate
        engine.generate = self
        self.num_texts = self.num_prompt = self.num_cached = 0

    async def __call__(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        """vLLM's own, and a look at its last output."""
        last: Any = None
        async for output in self.generate(*arguments, **options):
            last = output
            yield output
        if last is not None:
            self.num_texts += 1
            self.num_prompt += len(last.prompt_token_ids)
            self.num_cached += last.num_cached_tokens or 0

    def figures(self) -> dict[str, Any]:
        """The counts, and the share of prompt tokens that was computed."""
        return {
            "texts": self.num_texts,
            "prompt_tokens": self.num_prompt,
            "cached": self.num_cached,
            "computed_over_submitted": round(1 - self.num_cached / self.num_prompt, 3),
        }

    def reset(self) -> None:
        """Count from nothing."""
        self.num_texts = self.num_prompt = self.num_cached = 0


class InFlight:
    """At most `most` at once; sums nothing up."""

    def __init__(self, most: int) -> None:
        self.room = asyncio.Semaphore(most)

    async def all(self, work: Callable[[Any], Any], some: Sequence[Any]) -> list[Any]:
        """The results of `work` on each, in their order."""

        async def one(item: Any) -> Any:
            async with self.room:
                return await work(item)

        return list(await asyncio.gather(*(one(item) for item in some)))


def cpu_seconds() -> float:
    """Processor seconds of this process and those that it has started: vLLM's core is one."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def load_average() -> float:
    """Of the last minute: how busy the machine was when a part began."""
    return round(os.getloadavg()[0], 2)


def in_process(script: str, side: str, settings: Mapping[str, Any], *, wait: bool = True) -> Any:
    """What `script --side SIDE SETTINGS` writes, in a process of its own; `wait` False starts it.

    An engine's threads and memory go with it.
    """
    file = Path(tempfile.mkdtemp(prefix="lorid-bench-")) / "out.json"
    command = [sys.executable, str(Path(__file__).with_name(script)), "--side", side]
    command += ["--settings", json.dumps(dict(settings)), "--out", str(file)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )

    def result() -> Any:
        _, told = process.communicate()
        if process.returncode:
            raise SystemExit(f"{script} {side}: {told[-3000:]}")
        return json.loads(file.read_text())

    return result() if wait else result


def run_side(sides: Mapping[str, Callable[[dict[str, Any]], Any]]) -> None:
    """The other end of `in_process`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=list(sides), required=True)
    parser.add_argument("--settings", type=json.loads, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.write_text(json.dumps(sides[args.side](args.settings)))

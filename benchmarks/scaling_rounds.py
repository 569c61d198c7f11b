"""Rounds of many questions over a thousand engines that do not exist, in virtual time.

The driver is the real one: `StudentEngine` with its slots, `run_async`, the generator and the
answer checker. Only the engines are simulated: a text takes a drawn time of a clock that jumps from
one timer to the next (`VirtualLoop`), so what a run takes is the driver's own CPU time. Texts go to
the replica that `QuestionRouter`'s ranking names first and that has room.
"""

import asyncio
import hashlib
import random
import resource
import selectors
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil

from lorid.api import SolveRequest
from lorid.config import EndpointConfig, SamplingConfig
from lorid.distributed.routing import NUM_TRIED_ALONE, ranking
from lorid.distributed.sources import TripleFiles, Wanted
from lorid.distributed.student import StudentEngine
from lorid.engines.base import Completion, GenerationRequest, TextSink
from lorid.method.roles import Role
from lorid.presets import demo

MEDIAN_TEXT_S, SIGMA = 4.0, 0.4
"""A text of 90 tokens at some 20 tokens/s of one sequence in a full batch."""
RIGHT = 0.7
"""How often a reasoner's answer is the right one: about half of the rounds agree."""
TRIPLE = "triple/simulated/0123456789ab"
MIB = 1024**2


class VirtualSelector(selectors.DefaultSelector):
    """Does not wait for time: the loop's clock jumps; waits for threads, whose work is real."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.num_threads = 0.0, 0

    def select(self, timeout: float | None = None) -> Any:
        """See `selectors.BaseSelector.select`."""
        if timeout and self.num_threads == 0:
            self.now += timeout
            timeout = 0
        elif timeout:
            timeout = None
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is the selector's."""

    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        """Virtual seconds."""
        return self.virtual.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Counts the threads at work: time does not pass meanwhile."""
        self.virtual.num_threads += 1
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: "asyncio.Future[Any] | Future[Any]") -> None:
        self.virtual.num_threads -= 1


class VirtualEngines:
    """`num` engines of each role with `seats` texts at once each; answers by the clock."""

    def __init__(self, *, num: int, seats: int) -> None:
        self.names, self.seats = [f"replica-{number:04d}" for number in range(num)], seats
        self.busy: Counter[tuple[Role | None, str]] = Counter()
        self.written: Counter[tuple[Role | None, str]] = Counter()
        self.num_elsewhere = self.most = 0

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """See `TextEngine.generate`."""
        place = (request.role, self._place(request))
        self.busy[place] += 1
        self.written[place] += 1
        self.most = max(self.most, self.busy[place])
        chance = random.Random(request.seed)
        try:
            await asyncio.sleep(MEDIAN_TEXT_S * chance.lognormvariate(0, SIGMA))
        finally:
            self.busy[place] -= 1
        right = int(hashlib.sha256(request.question.encode()).hexdigest()[:6], 16)
        answer = right if chance.random() < RIGHT else chance.randrange(10**6)
        text = f"First find what there is, then take away what is gone.\n--> {answer} END"
        return Completion(text=text, finish_reason="stop", num_prompt_tokens=110, num_tokens=90)

    def _place(self, request: GenerationRequest) -> str:
        """As the router does it: the first of the question's ranking that has room."""
        ranked = ranking(request.question, self.names)
        for number, name in enumerate(ranked):
            if self.busy[request.role, name] < self.seats:
                self.num_elsewhere += number > 0
                return name
        return ranked[NUM_TRIED_ALONE % len(ranked)]

    async def load(
        self, triple: str, *, adapters: Mapping[Role, Path], sampling: SamplingConfig
    ) -> None:
        """Nothing to load."""

    async def unload(self, triple: str) -> None:
        """Nothing to unload."""

    async def probe(self, triple: str) -> Mapping[str, str]:
        """Unlike the base."""
        return {"base": "base", **{str(role): f"as {role}" for role in Role}}

    async def check(self) -> None:
        """Never dies."""

    async def aclose(self) -> None:
        """Nothing to give back."""


class NoFiles:
    """A source of one triple without files."""

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config

    def wanted(self) -> Wanted:
        """See `TripleSource`."""
        return Wanted(address=TRIPLE)

    def earlier(self) -> Sequence[Wanted]:
        """See `TripleSource`."""
        return ()

    def fetch(self, address: str) -> TripleFiles:
        """See `TripleSource`."""
        return TripleFiles(address=address, folders={}, config=self.config)


def schedule(*, replicas: int, at_once: int, questions: int, seats: int) -> dict[str, Any]:
    """Solve that many questions over that many virtual engines of each role."""
    config = demo().endpoint()
    serving = config.serving.model_copy(
        update={"layout": "split", "num_replicas": replicas, "max_concurrent_questions": 64}
    )
    engine = config.engine.model_copy(update={"max_num_seqs": seats})
    config = config.model_copy(update={"serving": serving, "engine": engine})
    engines = VirtualEngines(num=replicas, seats=seats)
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    before = psutil.Process().memory_full_info().uss
    peak = 0.0
    student = StudentEngine(
        config.model_dump_json(), lambda _: engines, NoFiles(config), follows=False
    )

    async def solve_all() -> list[Any]:
        nonlocal peak
        todo, done = iter(range(questions)), []

        async def work() -> None:
            nonlocal peak
            for number in todo:
                request = SolveRequest(question=f"Question {number}: how many apples are there?")
                done.append((await student.solve(request)).answer)
                if len(done) == questions // 2:
                    peak = psutil.Process().memory_full_info().uss

        await asyncio.gather(*(work() for _ in range(at_once)))
        return done

    began, cpu = time.monotonic(), _cpu_s()
    transcripts = loop.run_until_complete(solve_all())
    cpu, wall, virtual = _cpu_s() - cpu, time.monotonic() - began, loop.time()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return figures(transcripts, engines, at_once=at_once, cpu=cpu, wall=wall, virtual=virtual) | {
        "kib_a_question_at_work": round((peak - before) / 1024 / at_once, 1)
    }


def figures(
    transcripts: Sequence[Any], engines: VirtualEngines, *, at_once: int, cpu: float, wall: float,
    virtual: float,
) -> dict[str, Any]:  # fmt: skip
    """What a run took, asserting that every question was answered by the rules."""
    assert all(one.rounds and one.answer is not None for one in transcripts)
    assert all(one.rounds[-1].agreed == (one.outcome == "agreed") for one in transcripts)
    rounds = sum(len(one.rounds) for one in transcripts)
    texts = sum(one.num_generations for one in transcripts)
    loads = [engines.written[Role.KNOWLEDGE_GENERATOR, name] for name in engines.names]
    return {
        "replicas_of_each_role": len(engines.names),
        "seats": engines.seats,
        "questions": len(transcripts),
        "questions_at_work": at_once,
        "rounds_a_question": round(rounds / len(transcripts), 2),
        "texts_a_question": round(texts / len(transcripts), 2),
        "cpu_ms_a_question": round(cpu / len(transcripts) * 1000, 3),
        "cpu_ms_a_round": round(cpu / rounds * 1000, 3),
        "questions_per_cpu_s": round(len(transcripts) / cpu),
        "wall_s": round(wall, 1),
        "virtual_s": round(virtual, 1),
        "questions_per_virtual_s": round(len(transcripts) / virtual, 1),
        "texts_of_a_replica": {
            "mean": round(statistics.mean(loads), 1), "max": max(loads), "min": min(loads),
        },
        "most_texts_at_once_on_one": engines.most,
        "share_sent_past_the_first_choice": round(engines.num_elsewhere / texts, 4),
    }  # fmt: skip


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ranking_cost(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """CPU time of one ranking, and how evenly 64 questions a replica spread."""
    found: list[dict[str, Any]] = []
    for size in sizes:
        names = [f"replica-{number:04d}" for number in range(size)]
        ranking("to begin", names)
        began, num = time.process_time(), 64 * size
        first = Counter(ranking(f"question {number}", names)[0] for number in range(num))
        seconds = time.process_time() - began
        assert first.total() == num
        found.append(
            {"replicas": size, "us_a_text": round(seconds / num * 1e6, 1),
             "questions_each": 64, "most_on_one": max(first.values()),
             "least_on_one": min(first[name] for name in names)}
        )  # fmt: skip
    return found

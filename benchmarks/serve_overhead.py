"""What lorid adds to its engine: milliseconds of a question, and questions a second.

    bare         an asyncio loop that asks the engine itself: two texts at once, then the third
    method       the same through mutual feedback's own driver
    replica      StudentEngine as an object: slots, triple, seeds
    web          the endpoint's routes around it, called in this process: all that is lorid's
    handle       StudentEngine as a deployment, called by a handle of Ray Serve
    http         the endpoint, by HTTP through HAProxy and the ingress
    http no-op   GET /healthz of the same endpoint: Serve's own way in, without a question

The engine is scripted and its texts take as long as the question says, so whatever is above `bare`
is ours; or it is vLLM with the demo's triple, once in the endpoint and once in this process. Both
have the same settings, `engine.max_num_seqs` too, and are asked the same questions in turn, with
the same seeds; their answers are compared.
"""

import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import serve_paced
from free_ports import free_port
from serve_inside import AsgiEndpoint
from serve_paced import ALONE, MANY, NO_TIME, TRIPLE, WIDE_BATCH, Load, OneTriple, Paced, paced
from serve_triple import NAME, cpu_seconds, demo_triple, engine_of, load_average

from lorid.api import SolveRequest
from lorid.client import Client
from lorid.config import EndpointConfig
from lorid.engines.base import Completion, GenerationRequest, StudentTextEngine
from lorid.method.answers import extract_answer
from lorid.method.drivers import run_async
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, generation_seed, mutual_feedback
from lorid.method.roles import Role
from lorid.method.stopping import Policy
from lorid.presets import demo

MOST_ROUNDS = 20
# What a way gives for a question: the number of rounds, and whether the sides met in the last one.
Solved = tuple[int, bool]
Way = Callable[[str, int], Awaitable[Solved]]


class Bare:
    """Mutual feedback as one would write it by hand around an engine, without anything else."""

    def __init__(self, engine: StudentTextEngine, *, triple: str, seed: int) -> None:
        self.engine, self.triple, self.seed = engine, triple, seed
        self.checker = AnswerChecker()

    async def text(self, question: str, ask: Ask) -> Completion:
        """One text, by the endpoint's seed."""
        request = GenerationRequest(
            question=question, role=ask.role, triple=self.triple, knowledge=ask.knowledge,
            seed=generation_seed(self.seed, question=question, ask=ask),
        )  # fmt: skip
        return await self.engine.generate(request)

    async def second(self, question: str, index: int) -> Completion:
        """Knowledge, and the deep text that reads it."""
        knowledge = await self.text(question, Ask(role=Role.KNOWLEDGE_GENERATOR, round_index=index))
        ask = Ask(role=Role.DEEP_REASONER, round_index=index, knowledge=knowledge.text)
        return await self.text(question, ask)

    async def __call__(self, question: str, max_rounds: int) -> Solved:
        """Rounds until the sets of answers meet."""
        first: set[str] = set()
        second: set[str] = set()
        for index in range(max_rounds):
            texts = await asyncio.gather(
                self.text(question, Ask(role=Role.INTUITIVE_REASONER, round_index=index)),
                self.second(question, index),
            )
            for text, side in zip(texts, (first, second), strict=True):
                is_cut = text.finish_reason == "length"
                if answer := extract_answer(text.text, truncated=is_cut):
                    side.add(answer)
            if any(self.checker.equal(one, other) for one in first for other in second):
                return index + 1, True
        return max_rounds, False


def driven(bare: Bare, checker: AnswerChecker) -> Way:
    """The way `method`."""

    async def solve(question: str, max_rounds: int) -> Solved:
        async def sample(ask: Ask) -> Sampled:
            completion = await bare.text(question, ask)
            is_cut = completion.finish_reason == "length"
            return Sampled(text=completion.text, truncated=is_cut)

        policy = Policy(rule="paper", max_rounds=max_rounds)
        generator = mutual_feedback(question, policy=policy, checker=checker)
        transcript = await run_async(generator, sample=sample)
        return len(transcript.rounds), transcript.outcome == "agreed"

    return solve


def called(solve: Callable[[SolveRequest], Awaitable[Any]]) -> Way:
    """The ways `replica` and `handle`."""

    async def ask(question: str, max_rounds: int) -> Solved:
        solved = await solve(SolveRequest(question=question, max_rounds=max_rounds))
        transcript = solved.answer
        return len(transcript.rounds), transcript.outcome == "agreed"

    return ask


def posted(session: aiohttp.ClientSession, url: str) -> Way:
    """The way `http`."""

    async def ask(question: str, max_rounds: int) -> Solved:
        body = {"question": question, "max_rounds": max_rounds}
        async with session.post(f"{url}/v1/solve", json=body) as response:
            told = await response.json()
            assert response.status == 200, told
            return told["num_rounds"], told["outcome"] == "agreed"

    return ask


def inside(endpoint: AsgiEndpoint) -> Way:
    """The way `web`."""

    async def ask(question: str, max_rounds: int) -> Solved:
        body = {"question": question, "max_rounds": max_rounds}
        status, told = await endpoint.post("/v1/solve", body)
        assert status == 200, told
        return told["num_rounds"], told["outcome"] == "agreed"

    return ask


def no_op(session: aiohttp.ClientSession, url: str) -> Way:
    """The way `http no-op`."""

    async def ask(_: str, max_rounds: int) -> Solved:
        async with session.get(f"{url}/healthz") as response:
            await response.read()
            return max_rounds, False

    return ask


async def closed_loop(
    way: Way, questions: Sequence[str], *, rounds: int, in_flight: int
) -> tuple[list[Solved], list[float], float]:
    """Answers, seconds of each, and of all; whoever has an answer asks the next question."""
    answers: dict[int, Solved] = {}
    seconds: list[float] = []
    waiting = iter(enumerate(questions))

    async def worker() -> None:
        for number, question in waiting:
            began = time.perf_counter()
            answers[number] = await way(question, rounds)
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return [answers[n] for n in sorted(answers)], seconds, time.perf_counter() - began


async def in_turn(
    ways: dict[str, Way], questions: Sequence[str], *, rounds: int, in_flight: int, turns: int
) -> dict[str, dict[str, float]]:
    """Each way's median milliseconds, questions a second, and processor milliseconds of a question.

    These are of all processes, with what Ray does beside. Ways take turns, so that what else the
    machine does hits all, and give the answers of the first way.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, float] = dict.fromkeys(ways, 0.0)
    expected: dict[int, list[Solved]] = {}
    for turn in range(turns):
        some = questions[turn::turns]
        for name, way in ways.items():
            before = cpu_seconds()
            answers, took, wall = await closed_loop(way, some, rounds=rounds, in_flight=in_flight)
            cpu[name] += cpu_seconds() - before
            seconds[name] += took
            rates[name].append(len(some) / wall)
            if name != "http no-op":
                assert answers == expected.setdefault(turn, answers), name
    return {
        name: {
            "p50_ms": round(1000 * statistics.median(seconds[name]), 2),
            "questions_per_s": round(statistics.median(rates[name]), 1),
            "processor_ms": round(1000 * cpu[name] / len(seconds[name]), 2),
        }
        for name in ways
    }


def above(table: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Each way's milliseconds above `bare`, and its share of `bare`'s rate."""
    bare = table["bare"]
    return {
        name: {
            **one,
            "p50_ms_above_bare": round(one["p50_ms"] - bare["p50_ms"], 2),
            "share_of_bare_rate": round(one["questions_per_s"] / bare["questions_per_s"], 3),
        }
        for name, one in table.items()
        if name != "http no-op"
    } | {name: one for name, one in table.items() if name == "http no-op"}


async def scripted_ways(
    config: EndpointConfig, doors: "Doors", session: aiohttp.ClientSession
) -> dict[str, Way]:
    """All of them, around the scripted engine."""
    from lorid.distributed.student import StudentEngine

    engine = Paced()(config)
    await engine.load(TRIPLE, adapters={}, sampling=config.sampling)
    bare = Bare(engine, triple=TRIPLE, seed=config.seed)
    replica = StudentEngine(config.model_dump_json(), Paced(), OneTriple(), False)
    await replica.ready()
    return {
        "bare": bare,
        "method": driven(bare, AnswerChecker()),
        "replica": called(replica.solve),
        "web": inside(AsgiEndpoint(replica)),
        "handle": called(lambda request: doors.handle.solve.remote(request)),
        "http": posted(session, doors.url),
        "http no-op": no_op(session, doors.url),
    }


async def scripted(
    config: EndpointConfig, doors: "Doors", *, loads: Sequence[Load]
) -> dict[str, Any]:
    """Each load's figures, of all ways."""
    figures: dict[str, Any] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        ways = await scripted_ways(config, doors, session)
        questions = {name: way for name, way in ways.items() if name != "http no-op"}
        await in_turn(questions, questions_of(0.0, 128), rounds=1, in_flight=16, turns=1)
        for load in loads:
            table = await in_turn(
                ways if load.in_flight == 1 else questions,
                questions_of(load.text_s, load.count),
                rounds=load.rounds,
                in_flight=load.in_flight,
                turns=load.turns,
            )
            figures[load.name] = above(table)
            print(json.dumps({load.name: figures[load.name]}), flush=True)
    return figures


def questions_of(seconds: float, count: int) -> list[str]:
    """So many questions whose texts take so long."""
    return [paced(seconds, number) for number in range(count)]


async def real(url: str, store: str, *, num_problems: int) -> dict[str, Any]:
    """vLLM with the demo's triple: in the endpoint, and in this process."""
    with tempfile.TemporaryDirectory() as folder:
        triple = demo_triple(store, Path(folder), num_problems=num_problems)
        questions = [problem.question for problem in triple.problems]
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
            engine_of(triple) as engine,
        ):
            bare = Bare(engine, triple=NAME, seed=triple.config.seed)
            ways: dict[str, Way] = {"bare": bare, "http": posted(session, url)}
            some = questions[-16:]
            await in_turn(ways, some, rounds=1, in_flight=16, turns=1)
            alone = above(await in_turn(ways, questions[:16], rounds=1, in_flight=1, turns=4))
            print(json.dumps(alone), flush=True)
            many = above(await in_turn(ways, questions, rounds=MOST_ROUNDS, in_flight=64, turns=2))
            print(json.dumps(many), flush=True)
    return {"1 in flight, 1 round": alone, "64 in flight": many}


@dataclass(frozen=True, kw_only=True)
class Doors:
    """Where an endpoint can be asked."""

    url: str
    handle: Any


@contextlib.contextmanager
def served(make_app: Callable[[], Any]) -> Iterator[Doors]:
    """The endpoint of a graph for the block."""
    from lorid.distributed.cluster import connected, prepare_environment

    port = free_port()
    # Ray's workers would be nicer than the client and the bare engine that share their cores.
    os.environ |= {"RAY_worker_niceness": "0"}
    prepare_environment()
    from ray import cloudpickle, serve
    from ray.serve.config import HTTPOptions

    cloudpickle.register_pickle_by_value(serve_paced)
    url = f"http://127.0.0.1:{port}"
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        try:
            serve.run(make_app(), name="lorid")
            with Client(url) as client:
                client.wait_until_ready(timeout_s=180)
            handle = serve.get_deployment_handle("StudentEngine", app_name="lorid")
            yield Doors(url=url, handle=handle)
        finally:
            serve.shutdown()


def overhead_figures() -> dict[str, Any]:
    """Around the scripted engine, with the demo's batch and with one that bounds nobody."""
    load = load_average()
    config = demo().endpoint()
    engine = config.engine.model_copy(update={"max_num_seqs": WIDE_BATCH})
    wide = config.model_copy(update={"engine": engine})
    return {
        "load_average": load,
        **scripted_figures(config, loads=(*ALONE, *MANY, NO_TIME)),
        f"batch of {WIDE_BATCH}": scripted_figures(wide, loads=MANY),
    }


def scripted_figures(config: EndpointConfig, *, loads: Sequence[Load]) -> dict[str, Any]:
    """Of one endpoint around the scripted engine."""

    def app() -> Any:
        from lorid.distributed.deployments import build_app

        return build_app(config, source=OneTriple(), factory=Paced())

    with served(app) as doors:
        return asyncio.run(scripted(config, doors, loads=loads))


def vllm_figures(store: str, *, num_problems: int) -> dict[str, Any]:
    """Around vLLM."""
    load = load_average()

    def app() -> Any:
        from lorid.distributed.deployments import app_of_run

        return app_of_run(f"{store}#demo")

    with served(app) as doors:
        return {
            "problems": num_problems,
            "load_average": load,
            **asyncio.run(real(doors.url, store, num_problems=num_problems)),
        }

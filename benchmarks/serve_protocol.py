"""Mutual feedback beside the published protocol, on one engine: generations, time, decisions.

The published protocol draws twenty rounds of all three texts for every question, and only then
looks where the two sides' answers first meet; it counts an answer as right when any of those that
meet there equals the label, and no meeting as wrong. Ours draws a round when it is needed, and
never sees the label. Both ask the same engine with the same seeds, with the same number of
questions at work, so every text of ours is a text of theirs, word by word, unless two tokens were
so near that the batch decided (at most one question in fifty: asserted). Asserted too is that
replaying their log under our rule decides as ours did live.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serve_triple import (
    Counted,
    DemoTriple,
    Problem,
    cpu_seconds,
    engine_of,
    load_average,
    write,
)

from lorid.engines.vllm import VllmEngine
from lorid.jsonl import write_jsonl
from lorid.method.attempts import JudgedAttempts, ProblemAttempts, judge, parse_attempts_line
from lorid.method.drivers import run_async
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, Transcript, mutual_feedback
from lorid.method.replay import ProblemScore, score
from lorid.method.roles import Role
from lorid.method.scoring import wilson_interval
from lorid.method.stopping import ORACLE, Policy

# Of the published protocol's texts, sixty a question, they fill the engine many times over.
AT_ONCE = 32
Draw = Callable[[str, Ask], Any]


async def published(draw: Draw, problem: Problem, *, rounds: int) -> ProblemAttempts:
    """All rounds of everything: no text waits for another, but a deep one for its knowledge."""

    async def second(index: int) -> tuple[Sampled, Sampled]:
        knowledge = await draw(
            problem.question, Ask(role=Role.KNOWLEDGE_GENERATOR, round_index=index)
        )
        ask = Ask(role=Role.DEEP_REASONER, round_index=index, knowledge=knowledge.text)
        return knowledge, await draw(problem.question, ask)

    first = [Ask(role=Role.INTUITIVE_REASONER, round_index=index) for index in range(rounds)]
    intuitive, pairs = await asyncio.gather(
        asyncio.gather(*(draw(problem.question, ask) for ask in first)),
        asyncio.gather(*(second(index) for index in range(rounds))),
    )
    return ProblemAttempts(
        problem_id=problem.problem_id,
        question=problem.question,
        gold=problem.gold,
        intuitive=tuple(intuitive),
        knowledge=tuple(knowledge for knowledge, _ in pairs),
        deep=tuple(deep for _, deep in pairs),
    )


async def ours(
    draw: Draw, problem: Problem, *, policy: Policy, checker: AnswerChecker
) -> Transcript:
    """Mutual feedback, one round after the other."""
    generator = mutual_feedback(problem.question, policy=policy, checker=checker)
    return await run_async(generator, sample=lambda ask: draw(problem.question, ask))


class Side:
    """One protocol: what each problem gave, seconds of all, and of problems one at a time."""

    def __init__(self, work: Callable[[Problem], Any]) -> None:
        self.work = work
        self.found: list[Any] = []
        self.alone: list[float] = []
        self.wall_s = self.cpu_s = 0.0
        self.num_prompt = self.num_cached = 0

    async def together(self, problems: Sequence[Problem], counted: Counted) -> None:
        """These problems at once."""
        counted.reset()
        wall, cpu = time.perf_counter(), cpu_seconds()
        self.found += await asyncio.gather(*(self.work(problem) for problem in problems))
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += cpu_seconds() - cpu
        self.num_prompt += counted.num_prompt
        self.num_cached += counted.num_cached

    async def one(self, problem: Problem) -> None:
        """This problem while nothing else is asked."""
        began = time.perf_counter()
        await self.work(problem)
        self.alone.append(time.perf_counter() - began)

    def cost(self) -> dict[str, Any]:
        """What it took."""
        num = len(self.found)
        return {
            "seconds_a_question": round(self.wall_s / num, 3),
            "processor_s_a_question": round(self.cpu_s / num, 3),
            "median_seconds_alone": round(statistics.median(self.alone), 2),
            "prompt_tokens_a_question": round(self.num_prompt / num, 1),
            "computed_over_submitted": round(1 - self.num_cached / self.num_prompt, 3),
        }


async def draw_both(
    triple: DemoTriple, *, rounds: int, num_alone: int, checker: AnswerChecker, budget_s: float
) -> tuple[Side, Side]:
    """Both protocols in turn over `AT_ONCE` problems, then the next, until the time is used up."""
    policy = Policy(rule="paper", max_rounds=rounds)
    async with engine_of(triple) as engine:

        def draw(question: str, ask: Ask) -> Any:
            return write(engine, triple, question, ask)

        mine = Side(lambda problem: ours(draw, problem, policy=policy, checker=checker))
        theirs = Side(lambda problem: published(draw, problem, rounds=rounds))
        counted = Counted(engine.engine)
        for problem in triple.problems[:num_alone]:
            for side in (mine, theirs):
                await forget(engine)
                await side.one(problem)
        began = time.monotonic()
        for start in range(0, len(triple.problems), AT_ONCE):
            for side in (mine, theirs):
                await forget(engine)
                await side.together(triple.problems[start : start + AT_ONCE], counted)
            print(f"{len(mine.found)} questions: {mine.wall_s:.0f} and {theirs.wall_s:.0f} s")
            if time.monotonic() - began > budget_s:
                break
    return mine, theirs


async def forget(engine: VllmEngine) -> None:
    """Empty the prefix cache: neither side reads what the other has left."""
    while await engine.engine.reset_prefix_cache() is False:
        await asyncio.sleep(0.1)


def has_same_texts(log: ProblemAttempts, transcript: Transcript) -> bool:
    """Whether each text of ours is the published protocol's of that role and round."""
    lists = {
        Role.INTUITIVE_REASONER: log.intuitive,
        Role.KNOWLEDGE_GENERATOR: log.knowledge,
        Role.DEEP_REASONER: log.deep,
    }
    return all(
        sampled.text == lists[ask.role][ask.round_index].text for ask, sampled in transcript.used
    )


def require_same_decision(judged: JudgedAttempts, live: Transcript, *, policy: Policy) -> None:
    """The published attempts under our rule decide as ours did live."""
    replayed = score(judged, policy=policy)
    assert (replayed.answer, replayed.outcome, replayed.num_rounds, replayed.confidence) == (
        live.answer, live.outcome, len(live.rounds), live.confidence,
    ), judged.problem_id  # fmt: skip


def row(scores: Sequence[ProblemScore], *, generations: float, **more: Any) -> dict[str, Any]:
    """Accuracy with its interval, and what it cost."""
    num_right, total = sum(one.correct is True for one in scores), len(scores)
    low, high = wilson_interval(num_right, total)
    return {
        "accuracy": num_right / total,
        "interval": [round(low, 4), round(high, 4)],
        "generations_a_question": round(generations, 2),
        **more,
    }


def protocol_figures(
    triple: DemoTriple, *, rounds: int, num_alone: int, log: Path, budget_s: float
) -> dict[str, Any]:
    """Draw, assert, count; the published attempts go to `log`."""
    load = load_average()
    policy = Policy(rule="paper", max_rounds=rounds)
    with AnswerChecker() as checker:
        mine, theirs = asyncio.run(
            draw_both(
                triple, rounds=rounds, num_alone=num_alone, checker=checker, budget_s=budget_s
            )
        )
        judged = [judge(item, checker) for item in theirs.found]
    write_jsonl(log, [attempts_row(item) for item in theirs.found])
    num, num_equal = len(judged), 0
    for item, judged_item, live in zip(theirs.found, judged, mine.found, strict=True):
        if has_same_texts(item, live):
            num_equal += 1
            require_same_decision(judged_item, live, policy=policy)
    assert num_equal >= 0.98 * num, (num_equal, num)
    spent = sum(live.num_generations for live in mine.found) / num
    oracle = Policy(rule=ORACLE, max_rounds=rounds)
    return {
        "problems": num, "rounds": rounds, "questions_at_once": AT_ONCE,
        "questions_alone": num_alone, "load_average": load,
        "texts_compared": sum(len(live.used) for live in mine.found),
        "questions_with_equal_texts_and_decision": num_equal,
        "published, any agreed answer that is right": row(
            [score(item, policy=oracle) for item in judged],
            generations=3 * rounds, **theirs.cost(),
        ),
        "lorid, rule paper": row(
            [score(item, policy=policy) for item in judged], generations=spent, **mine.cost()
        ),
        "generations_ratio": round(3 * rounds / spent, 2),
        "wall_ratio": round(theirs.wall_s / mine.wall_s, 2),
        "processor_ratio": round(theirs.cpu_s / mine.cpu_s, 2),
        "lorid_at_most": [bound_row(judged, bound) for bound in range(1, rounds + 1)],
    }  # fmt: skip


def evaluation_figures(log: Path, *, rounds: int) -> dict[str, Any]:
    """Generations and accuracy on the evaluation's own log, which holds the rounds that were drawn.

    The published protocol draws all of them whatever they say, and decides by those up to the first
    meeting; so the log says too how it would have scored.
    """
    with AnswerChecker() as checker:
        judged = [judge(item, checker) for item in read_log(log)]
    oracle = Policy(rule=ORACLE, max_rounds=rounds)
    theirs = row([score(item, policy=oracle) for item in judged], generations=3 * rounds)
    ours_at = [bound_row(judged, bound) for bound in range(1, rounds + 1)]
    for one in ours_at:
        one["generations_ratio"] = round(3 * rounds / one["generations_a_question"], 2)
    return {
        "problems": len(judged), "rounds": rounds,
        "published, any agreed answer that is right": theirs, "lorid_at_most": ours_at,
        "fewest_rounds_at_equal_accuracy": min(
            one["max_rounds"] for one in ours_at if one["accuracy"] >= theirs["accuracy"]
        ),
        "bound_chosen_on_the_other_half": held_out(judged, rounds=rounds),
    }  # fmt: skip


def held_out(judged: Sequence[JudgedAttempts], *, rounds: int) -> dict[str, Any]:
    """Each half's questions with the fewest rounds that cost the other half nothing."""
    oracle = Policy(rule=ORACLE, max_rounds=rounds)
    scores, bounds, drawn = [], [], 0
    for start in (0, 1):
        half, other = judged[start::2], judged[1 - start :: 2]
        most = sum(score(item, policy=oracle).correct is True for item in other)
        bound = next(
            bound
            for bound in range(1, rounds + 1)
            if bound_row(other, bound)["accuracy"] * len(other) >= most - 1e-6
        )
        bounds.append(bound)
        of_half = [score(item, policy=Policy(rule="paper", max_rounds=bound)) for item in half]
        drawn += sum(one.num_generations for one in of_half)
        scores += of_half
    found = row(scores, generations=drawn / len(scores))
    ratio = round(3 * rounds / found["generations_a_question"], 2)
    return {"max_rounds_by_half": bounds, **found, "generations_ratio": ratio}


def bound_row(judged: Sequence[JudgedAttempts], bound: int) -> dict[str, Any]:
    """Our rule with at most `bound` rounds on the same attempts."""
    scores = [score(item, policy=Policy(rule="paper", max_rounds=bound)) for item in judged]
    spent = sum(one.num_generations for one in scores) / len(scores)
    return {"max_rounds": bound, **row(scores, generations=spent)}


def attempts_row(item: ProblemAttempts) -> dict[str, Any]:
    """A line of an attempts file."""
    texts = {
        name: [sampled.to_element() for sampled in getattr(item, name)]
        for name in ("intuitive", "knowledge", "deep")
    }
    return {**asdict(item), **texts}


def read_log(log: Path) -> list[ProblemAttempts]:
    """The attempts that `protocol_figures` has logged."""
    return [parse_attempts_line(json.loads(line)) for line in log.read_text().splitlines()]

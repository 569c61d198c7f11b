"""Mutual feedback as a generator: one logic for every driver.

It yields what to ask (the intuitive attempt and the knowledge at once, then the deep attempt given
that knowledge), is sent what was sampled, and returns the transcript::

    transcript = run_sync(mutual_feedback(q, policy=Policy(), checker=checker), sample=ask_model)

Rounds see nothing of each other: mutual feedback is an agreement stopping rule over independent
rounds (arXiv 2508.13037). Which rule stops it is in `lorid.method.stopping`. No I/O happens here.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from lorid.method.answers import extract_answer
from lorid.method.equivalence import AnswerChecker
from lorid.method.roles import Role
from lorid.method.stopping import Answers, choose_answer, is_satisfied, sides_of


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One text to sample: `round_index` counts from 0; knowledge is for the deep reasoner."""

    role: Role
    round_index: int
    knowledge: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What came back for an ask."""

    text: str
    truncated: bool = False
    num_tokens: int = 0
    num_prompt_tokens: int = 0

    def to_element(self) -> dict[str, Any]:
        """The element of an attempts file."""
        finish_reason = "length" if self.truncated else "stop"
        return {"text": self.text, "finish_reason": finish_reason, "num_tokens": self.num_tokens}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One reasoner's rationale and the answer extracted from it."""

    rationale: str
    answer: str | None
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class Round:
    """One intuitive attempt, one knowledge, one deep attempt; None where the rule asks for none.

    `agreed` says whether the rule was satisfied after this round.
    """

    intuitive: Attempt | None
    knowledge: str | None
    deep: Attempt | None
    agreed: bool


class Outcome(StrEnum):
    """How a question ended."""

    AGREED = "agreed"
    EXHAUSTED = "exhausted"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rule, its bound, and what to answer when the rounds are used up."""

    rule: str = "paper"
    max_rounds: int = 20
    on_exhaustion: Literal["plurality", "abstain"] = "plurality"


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """All rounds, the outcome and the final answer.

    `confidence` is the share of the answer among all extracted answers, None without an answer.
    """

    question: str
    rounds: tuple[Round, ...]
    outcome: Outcome
    answer: str | None
    confidence: float | None
    drawn: tuple[tuple[Ask, Sampled], ...]

    @property
    def num_generations(self) -> int:
        """How many texts were sampled."""
        return len(self.drawn)

    @property
    def num_tokens(self) -> int:
        """Tokens that were sampled."""
        return sum(sampled.num_tokens for _, sampled in self.drawn)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that were read."""
        return sum(sampled.num_prompt_tokens for _, sampled in self.drawn)

    def attempts_row(self, *, problem_id: str, gold: str | None = None) -> dict[str, Any]:
        """One line of the attempts file: everything that a replay needs."""

        def texts_of(role: Role) -> list[dict[str, Any]]:
            return [sampled.to_element() for ask, sampled in self.drawn if ask.role is role]

        return {
            "problem_id": problem_id,
            "question": self.question,
            "gold": gold,
            "intuitive": texts_of(Role.INTUITIVE_REASONER),
            "knowledge": texts_of(Role.KNOWLEDGE_GENERATOR),
            "deep": texts_of(Role.DEEP_REASONER),
        }


MutualFeedback = Generator[tuple[Ask, ...], Sequence[Sampled], Transcript]


def mutual_feedback(question: str, *, policy: Policy, checker: AnswerChecker) -> MutualFeedback:
    """Ask until the policy's rule is satisfied, or its rounds are used up; returns a Transcript."""
    asks_intuitive, asks_deep = sides_of(policy.rule)
    drawn: list[tuple[Ask, Sampled]] = []
    rounds: list[Round] = []
    answers = Answers(checker=checker)
    for index in range(policy.max_rounds):
        intuitive, knowledge, deep = None, None, None
        first: list[Ask] = []
        if asks_intuitive:
            first.append(Ask(role=Role.INTUITIVE_REASONER, round_index=index))
        if asks_deep:
            first.append(Ask(role=Role.KNOWLEDGE_GENERATOR, round_index=index))
        replies = yield tuple(first)
        drawn += zip(first, replies, strict=True)
        if asks_intuitive:
            intuitive = attempt_from(replies[0])
        if asks_deep:
            knowledge = replies[-1].text
            second = Ask(role=Role.DEEP_REASONER, round_index=index, knowledge=knowledge)
            (reply,) = yield (second,)
            drawn.append((second, reply))
            deep = attempt_from(reply)
        answers.add(
            intuitive=intuitive.answer if intuitive else None, deep=deep.answer if deep else None
        )
        agreed = is_satisfied(policy.rule, answers)
        rounds.append(Round(intuitive=intuitive, knowledge=knowledge, deep=deep, agreed=agreed))
        if agreed:
            break
    return _concluded(question, policy=policy, rounds=rounds, drawn=drawn, answers=answers)


def attempt_from(sampled: Sampled) -> Attempt:
    """The attempt in a sampled text."""
    return Attempt(
        rationale=sampled.text,
        answer=extract_answer(sampled.text, truncated=sampled.truncated),
        truncated=sampled.truncated,
    )


def _concluded(
    question: str,
    *,
    policy: Policy,
    rounds: Sequence[Round],
    drawn: Sequence[tuple[Ask, Sampled]],
    answers: Answers,
) -> Transcript:
    # One side alone stops after its attempt even if that has no answer: nobody agreed then.
    agreed = bool(rounds) and rounds[-1].agreed and bool(answers.candidates)
    answer = None
    if agreed or policy.on_exhaustion == "plurality":
        answer = choose_answer(policy.rule, answers, agreed=agreed)
    outcome = Outcome.AGREED if agreed else Outcome.EXHAUSTED if answer else Outcome.NO_ANSWER
    return Transcript(
        question=question,
        rounds=tuple(rounds),
        outcome=outcome,
        answer=answer,
        confidence=answers.share_of(answer) if answer is not None else None,
        drawn=tuple(drawn),
    )


def run_sync(generator: MutualFeedback, *, sample: Callable[[Ask], Sampled]) -> Transcript:
    """Drive the generator with a function that samples one text."""
    try:
        asks = next(generator)
        while True:
            asks = generator.send([sample(ask) for ask in asks])
    except StopIteration as stop:
        return stop.value
    finally:
        generator.close()


async def run_async(
    generator: MutualFeedback, *, sample: Callable[[Ask], Awaitable[Sampled]]
) -> Transcript:
    """Drive the generator with a coroutine; asks of one yield run at the same time.

    When one of them fails, or this call is cancelled, the others are cancelled too.
    """

    async def sampled(ask: Ask) -> Sampled:
        return await sample(ask)

    try:
        asks = next(generator)
        while True:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(sampled(ask)) for ask in asks]
            asks = generator.send([task.result() for task in tasks])
    except StopIteration as stop:
        return stop.value
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from group_error
    finally:
        generator.close()


def generation_seed(seed: int, *, question: str, ask: Ask) -> int:
    """A 31-bit seed for one ask: what is sampled does not depend on what else is in the batch."""
    key = f"{seed}\x00{question}\x00{ask.role}\x00{ask.round_index}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1

"""Mutual feedback as a generator: one logic for every driver.

It yields the asks that may start now, is sent replies as they come, in any order, and returns the
transcript::

    transcript = run_sync(mutual_feedback(q, policy=Policy(), checker=checker), sample=ask_model)

    yields  (intuitive 0, knowledge 0)          is sent  [(knowledge 0, "...")]
    yields  (deep 0 given that knowledge,)      is sent  [(deep 0, "..."), (intuitive 0, "...")]
    yields  (intuitive 1, knowledge 1)          ... until the rule is satisfied

Rounds see nothing of each other: mutual feedback is an agreement stopping rule over independent
rounds (arXiv 2508.13037). So several may be at work at once (`lorid.method.waves`); they are judged
strictly in their order, and what is decided never depends on timing. Which rule stops it is in
`lorid.method.stopping`, who samples in `lorid.method.drivers`. No I/O happens here.
"""

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lorid.errors import ConfigError
from lorid.method.answers import extract_answer
from lorid.method.equivalence import AnswerChecker
from lorid.method.roles import Role
from lorid.method.stopping import (
    NO_ORACLE,
    ORACLE,
    AnswerClasses,
    Outcome,
    Policy,
    Tally,
    conclude,
    is_satisfied,
)
from lorid.method.waves import LAZY, Waves


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
    # Depends on what the engine has read before, so it is not compared.
    num_cached_tokens: int = field(default=0, compare=False)

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


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a question cost: texts that were used, that came for nothing, and that were cut short.

    A text is cut short when it is cancelled or fails in a round that was not needed; its tokens are
    unknown and not counted.
    """

    num_used: int = 0
    num_unneeded: int = 0
    num_cut_short: int = 0
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0

    def with_leftovers(self, finished: Sequence[Sampled], *, num_cut_short: int) -> "Effort":
        """This effort and what was under way when the question was decided."""
        return replace(
            self,
            num_unneeded=self.num_unneeded + len(finished),
            num_cut_short=self.num_cut_short + num_cut_short,
            num_tokens=self.num_tokens + sum(one.num_tokens for one in finished),
            num_prompt_tokens=self.num_prompt_tokens
            + sum(one.num_prompt_tokens for one in finished),
            num_cached_tokens=self.num_cached_tokens
            + sum(one.num_cached_tokens for one in finished),
        )


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """All rounds, the outcome and the final answer.

    `confidence` is explained at `lorid.method.stopping.Decision`; None without an answer. `used`
    holds the texts of the rounds in their order. Transcripts that decided alike are equal:
    `effort`, which depends on timing, is not compared.
    """

    question: str
    rounds: tuple[Round, ...]
    outcome: Outcome
    answer: str | None
    confidence: float | None
    used: tuple[tuple[Ask, Sampled], ...]
    effort: Effort = field(compare=False)

    @property
    def num_generations(self) -> int:
        """How many texts were begun, needed or not."""
        return self.effort.num_used + self.num_wasted

    @property
    def num_wasted(self) -> int:
        """How many texts were begun and not needed."""
        return self.effort.num_unneeded + self.effort.num_cut_short

    @property
    def num_tokens(self) -> int:
        """Tokens of the texts that came back, needed or not."""
        return self.effort.num_tokens

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that were read for the texts that came back."""
        return self.effort.num_prompt_tokens

    @property
    def num_cached_tokens(self) -> int:
        """How many of those the engine had read before."""
        return self.effort.num_cached_tokens

    def attempts_row(self, *, problem_id: str, gold: str | None = None) -> dict[str, Any]:
        """One line of the attempts file: everything that a replay needs, of the rounds used."""

        def texts_of(role: Role) -> list[dict[str, Any]]:
            return [sampled.to_element() for ask, sampled in self.used if ask.role is role]

        return {
            "problem_id": problem_id,
            "question": self.question,
            "gold": gold,
            "intuitive": texts_of(Role.INTUITIVE_REASONER),
            "knowledge": texts_of(Role.KNOWLEDGE_GENERATOR),
            "deep": texts_of(Role.DEEP_REASONER),
        }


Reply = tuple[Ask, Sampled | Exception]
MutualFeedback = Generator[tuple[Ask, ...], Sequence[Reply], Transcript]
# Told of each round as it is judged: its index and the round.
Watch = Callable[[int, Round], None]


def mutual_feedback(
    question: str,
    *,
    policy: Policy,
    checker: AnswerChecker,
    waves: Waves = LAZY,
    watch: Watch | None = None,
) -> MutualFeedback:
    """Ask until the policy's rule is satisfied, or its rounds are used up; returns a Transcript.

    A reply is an ask with what was sampled, or with the exception that came instead. An exception
    is raised here when its round is the next to be judged; in a round that turns out not to be
    needed it only counts as wasted. A tuple of no asks means: wait for what is under way. `watch`
    is called where the generator is advanced.

    Raises:
        ConfigError: the rule needs a label.
        ValueError: a reply is to no ask.
    """
    if policy.rule == ORACLE:
        raise ConfigError(NO_ORACLE)
    return _mutual_feedback(
        _Question(question, policy=policy, checker=checker, waves=waves, watch=watch)
    )


def _mutual_feedback(question: "_Question") -> MutualFeedback:
    asks = question.more_rounds()
    while True:
        replies = yield asks
        deep = question.take(replies)
        if question.judge():
            return question.transcript()
        asks = (*deep, *question.more_rounds())


class _Question:
    """The rounds of one question: judged ones in order, and those at work."""

    def __init__(
        self,
        question: str,
        *,
        policy: Policy,
        checker: AnswerChecker,
        waves: Waves,
        watch: Watch | None,
    ) -> None:
        self.question, self.policy, self.waves, self.watch = question, policy, waves, watch
        self.classes = AnswerClasses(checker)
        self.tally = Tally()
        self.rounds: list[Round] = []
        self.used: list[tuple[Ask, Sampled]] = []
        self.waiting: set[Ask] = set()
        # The replies of each round at work, by role; dictionaries keep nothing of their timing.
        self.at_work: dict[int, dict[Role, Reply]] = {}
        self.num_started = 0
        self.roles = tuple(
            role
            for role in Role
            if (policy.asks_intuitive if role is Role.INTUITIVE_REASONER else policy.asks_deep)
        )

    def more_rounds(self) -> tuple[Ask, ...]:
        """The first asks of the rounds that may start now."""
        last = min(
            len(self.rounds) + self.waves.width(self.policy, self.tally),
            self.policy.most_rounds,
            *(index + 1 for index in self.at_work if self._failure(index)),
        )
        asks: list[Ask] = []
        for index in range(self.num_started, last):
            self.at_work[index] = {}
            roles = (role for role in self.roles if role is not Role.DEEP_REASONER)
            asks += (Ask(role=role, round_index=index) for role in roles)
        self.num_started = max(self.num_started, last)
        self.waiting.update(asks)
        return tuple(asks)

    def take(self, replies: Sequence[Reply]) -> tuple[Ask, ...]:
        """Note replies; returns the deep asks that their knowledge allows."""
        asks: list[Ask] = []
        for ask, sampled in replies:
            if ask not in self.waiting:
                raise ValueError(f"a reply to what was not asked: {ask}")
            self.waiting.remove(ask)
            self.at_work[ask.round_index][ask.role] = (ask, sampled)
            if ask.role is Role.KNOWLEDGE_GENERATOR and isinstance(sampled, Sampled):
                asks.append(
                    Ask(
                        role=Role.DEEP_REASONER,
                        round_index=ask.round_index,
                        knowledge=sampled.text,
                    )
                )
        self.waiting.update(asks)
        return tuple(asks)

    def judge(self) -> bool:
        """Judge every round whose turn has come; returns whether the question is decided."""
        while (index := len(self.rounds)) in self.at_work:
            if failure := self._failure(index):
                raise failure
            if len(self.at_work[index]) < len(self.roles):
                return False
            self._judge_round(self.at_work.pop(index))
            if self.rounds[-1].agreed or len(self.rounds) == self.policy.most_rounds:
                return True
        return False

    def transcript(self) -> Transcript:
        """The transcript of the rounds so far."""
        decision = conclude(self.policy, self.tally)
        unneeded = [sampled for round_ in self.at_work.values() for _, sampled in round_.values()]
        finished = [sampled for sampled in unneeded if isinstance(sampled, Sampled)]
        effort = Effort(
            num_used=len(self.used),
            num_tokens=sum(sampled.num_tokens for _, sampled in self.used),
            num_prompt_tokens=sum(sampled.num_prompt_tokens for _, sampled in self.used),
            num_cached_tokens=sum(sampled.num_cached_tokens for _, sampled in self.used),
        )
        return Transcript(
            question=self.question,
            rounds=tuple(self.rounds),
            outcome=decision.outcome,
            answer=None if decision.answer is None else self.classes.texts[decision.answer],
            confidence=decision.confidence,
            used=tuple(self.used),
            effort=effort.with_leftovers(finished, num_cut_short=len(unneeded) - len(finished)),
        )

    def _failure(self, index: int) -> Exception | None:
        replies = self.at_work[index].values()
        return next((reply for _, reply in replies if isinstance(reply, Exception)), None)

    def _judge_round(self, replies: dict[Role, Reply]) -> None:
        texts: dict[Role, Sampled] = {}
        for role in self.roles:
            ask, sampled = replies[role]
            assert isinstance(sampled, Sampled)  # failures were raised before
            texts[role] = sampled
            self.used.append((ask, sampled))
        attempts = {
            role: attempt_from(sampled)
            for role, sampled in texts.items()
            if role is not Role.KNOWLEDGE_GENERATOR
        }
        # The intuitive side's class first: the order of first appearance is part of the rules.
        classes = {role: self.classes.class_of(one.answer) for role, one in attempts.items()}
        self.tally.add(
            intuitive=classes.get(Role.INTUITIVE_REASONER), deep=classes.get(Role.DEEP_REASONER)
        )
        knowledge = texts.get(Role.KNOWLEDGE_GENERATOR)
        self.rounds.append(
            Round(
                intuitive=attempts.get(Role.INTUITIVE_REASONER),
                knowledge=knowledge.text if knowledge else None,
                deep=attempts.get(Role.DEEP_REASONER),
                agreed=is_satisfied(self.policy, self.tally),
            )
        )
        if self.watch is not None:
            self.watch(len(self.rounds) - 1, self.rounds[-1])


def attempt_from(sampled: Sampled) -> Attempt:
    """The attempt in a sampled text."""
    return Attempt(
        rationale=sampled.text,
        answer=extract_answer(sampled.text, truncated=sampled.truncated),
        truncated=sampled.truncated,
    )


def generation_seed(seed: int, *, question: str, ask: Ask) -> int:
    """A 31-bit seed for one ask: what is sampled does not depend on what else is in the batch."""
    key = f"{seed}\x00{question}\x00{ask.role}\x00{ask.round_index}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1

"""The rules that mutual feedback stops by, over the answers in the order of their rounds.

* paper: each side's answers form a cumulative set; stop at the first round where the sets meet. The
  agreed answer with most pooled votes is chosen, then the one that came first. The label is never
  looked at.
* paper-oracle: as paper, scored as published: any agreed answer may be the right one, and without
  agreement there is none. It reads the label, so it is a rule of replay alone.
* same-round: stop when both answers of one round are equal.
* bayes: stop when the leading answer is the majority with a posterior of at least `tau`, and both
  sides have given it (the Beta criterion of Adaptive-Consistency, arXiv 2305.11860, over both
  sides' pooled votes).
* majority: draw every round, then take the most frequent answer (self-consistency).
* intuitive-only, deep-only: one attempt of one side.

    tally = Tally()
    tally.add(intuitive=0, deep=1)          # classes of equal answers, by number
    if is_satisfied(policy, tally): decision = conclude(policy, tally)

Within a round the intuitive side comes first. Rules see numbers: which answers are equal is decided
once, by `AnswerClasses`.
"""

import math
from collections.abc import Container
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Literal, get_args

from lorid.errors import ConfigError
from lorid.method.equivalence import AnswerChecker

Rule = Literal[
    "paper", "paper-oracle", "same-round", "bayes", "majority", "intuitive-only", "deep-only"
]
LiveRule = Literal["paper", "same-round", "bayes", "majority", "intuitive-only", "deep-only"]
OnExhaustion = Literal["plurality", "abstain"]
RULES: tuple[str, ...] = get_args(Rule)
ORACLE = "paper-oracle"
LIVE_RULES: tuple[str, ...] = get_args(LiveRule)
NO_ORACLE = (
    f"rule {ORACLE!r} looks at the label, and a question that is being solved has none: it is for "
    f"`lorid replay` alone; choose {', '.join(LIVE_RULES)}"
)
DEFAULT_TAU = 0.95


class Outcome(StrEnum):
    """How a question ended."""

    AGREED = "agreed"
    EXHAUSTED = "exhausted"
    NO_ANSWER = "no_answer"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rule, its bounds, and what to answer when the rounds are used up.

    `tau` is the posterior that `bayes` stops at, between 0.5 and 1.

    Raises:
        ConfigError: the rule is unknown, or a bound is out of range.
    """

    rule: str = "paper"
    max_rounds: int = 20
    on_exhaustion: OnExhaustion = "plurality"
    tau: float = DEFAULT_TAU

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"unknown rule {self.rule!r}: choose one of {', '.join(RULES)}")
        if self.max_rounds < 1:
            raise ConfigError(f"max_rounds is {self.max_rounds}: give 1 or more")
        if not 0.5 < self.tau < 1:
            raise ConfigError(f"tau is {self.tau}: give a probability between 0.5 and 1")

    @property
    def asks_intuitive(self) -> bool:
        """Whether the rule asks the intuitive reasoner."""
        return self.rule != "deep-only"

    @property
    def asks_deep(self) -> bool:
        """Whether the rule asks for knowledge and the deep reasoner."""
        return self.rule != "intuitive-only"

    @property
    def most_rounds(self) -> int:
        """The most rounds that can be drawn: one side alone has one."""
        return self.max_rounds if self.asks_intuitive and self.asks_deep else 1


@dataclass(kw_only=True, slots=True)
class Votes:
    """How often each side gave one answer."""

    num_intuitive: int = 0
    num_deep: int = 0

    @property
    def total(self) -> int:
        """Pooled votes."""
        return self.num_intuitive + self.num_deep

    @property
    def is_shared(self) -> bool:
        """Whether both sides gave it."""
        return self.num_intuitive > 0 and self.num_deep > 0


@dataclass(kw_only=True, slots=True)
class Tally:
    """Votes of the rounds so far; `votes` is in order of first appearance."""

    votes: dict[int, Votes] = field(default_factory=dict[int, Votes])
    newest: tuple[int | None, int | None] = (None, None)
    num_rounds: int = 0

    def add(self, *, intuitive: int | None, deep: int | None) -> None:
        """Take one round: the class of each side's answer, None where there is none."""
        if intuitive is not None:
            self.votes.setdefault(intuitive, Votes()).num_intuitive += 1
        if deep is not None:
            self.votes.setdefault(deep, Votes()).num_deep += 1
        self.newest = (intuitive, deep)
        self.num_rounds += 1

    @property
    def num_votes(self) -> int:
        """All answers so far."""
        return sum(votes.total for votes in self.votes.values())

    @property
    def shared(self) -> list[int]:
        """The classes that both sides gave, in order of first appearance."""
        return [answer for answer, votes in self.votes.items() if votes.is_shared]

    def leader(self) -> int | None:
        """The class with most pooled votes, then the first; None without votes."""
        # `max` keeps the first of equals.
        return max(self.votes, key=lambda answer: self.votes[answer].total, default=None)

    def rival_votes(self, answer: int) -> int:
        """Votes of the strongest class beside `answer`."""
        return max((v.total for other, v in self.votes.items() if other != answer), default=0)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How the rounds of a tally end: `answer` is a class.

    `confidence` is the posterior of being the majority under `bayes`; under every other rule it is
    the answer's share of all votes, which is no probability. None without an answer.
    """

    outcome: Outcome
    answer: int | None
    confidence: float | None


class AnswerClasses:
    """Numbers classes of equal answers in order of first appearance.

    An answer joins the first class whose first text it equals, so the classes of the first rounds
    never depend on later ones, even where equality is not transitive.
    """

    def __init__(self, checker: AnswerChecker) -> None:
        self.texts: list[str] = []
        self._checker = checker
        self._known: dict[str, int] = {}

    def class_of(self, answer: str | None) -> int | None:
        """The answer's class; None for no answer or an empty one."""
        if not answer:
            return None
        if answer not in self._known:
            self._known[answer] = self._first_equal(answer)
        return self._known[answer]

    def _first_equal(self, answer: str) -> int:
        for number, text in enumerate(self.texts):
            if self._checker.equal(text, answer):
                return number
        self.texts.append(answer)
        return len(self.texts) - 1


def is_satisfied(policy: Policy, tally: Tally) -> bool:
    """Whether the rule stops after the newest round."""
    match policy.rule:
        case "paper" | "paper-oracle":
            return bool(tally.shared)
        case "same-round":
            return tally.newest[0] is not None and tally.newest[0] == tally.newest[1]
        case "bayes":
            leader = tally.leader()
            return (
                leader is not None
                and tally.votes[leader].is_shared
                and _posterior(tally, leader) >= policy.tau
            )
        case _:
            return tally.num_rounds >= policy.most_rounds


def conclude(policy: Policy, tally: Tally, *, right: Container[int] = ()) -> Decision:
    """The decision over the rounds so far, as if no more were to come.

    `right` holds the classes that equal the label; `paper-oracle` alone looks at it.
    """
    agreed = bool(tally.votes) and _is_agreed(policy, tally)
    answer = _agreed_answer(policy, tally, right=right) if agreed else _fallback(policy, tally)
    if answer is None:
        return Decision(outcome=Outcome.NO_ANSWER, answer=None, confidence=None)
    if policy.rule == "bayes":
        confidence = _posterior(tally, answer)
    else:
        confidence = tally.votes[answer].total / tally.num_votes
    outcome = Outcome.AGREED if agreed else Outcome.EXHAUSTED
    return Decision(outcome=outcome, answer=answer, confidence=confidence)


def fewest_rounds_to_come(policy: Policy, tally: Tally) -> int:
    """Rounds that an unsatisfied rule cannot do without, whatever they say; at least 1.

    `majority` wants all of them. `bayes` needs as many as the leader would take to pass `tau` if
    both sides gave it every time. The other rules may stop after any round.
    """
    left = policy.most_rounds - tally.num_rounds
    if policy.rule == "majority":
        return max(1, left)
    if policy.rule != "bayes":
        return 1
    leader = tally.leader()
    votes = 0 if leader is None else tally.votes[leader].total
    rival = 0 if leader is None else tally.rival_votes(leader)
    enough = (n for n in range(1, left) if chance_of_majority(votes + 2 * n, rival) >= policy.tau)
    return next(enough, max(1, left))


@lru_cache(maxsize=16384)
def chance_of_majority(votes: int, rival_votes: int) -> float:
    """P(p > 1/2) under Beta(votes + 1, rival_votes + 1), exactly.

    The regularised incomplete beta function of integers is a binomial sum (DLMF 8.17.5):
    1 - I_{1/2}(v + 1, r + 1) = sum_{j=0}^{v} C(v + r + 1, j) / 2^(v + r + 1).
    """
    count = votes + rival_votes + 1
    return sum(math.comb(count, chosen) for chosen in range(votes + 1)) / 2**count


def _posterior(tally: Tally, answer: int) -> float:
    return chance_of_majority(tally.votes[answer].total, tally.rival_votes(answer))


def _is_agreed(policy: Policy, tally: Tally) -> bool:
    # Rules that need no agreement have done what they are for once there is an answer; a log may
    # hold fewer rounds than `majority` would have drawn.
    if policy.rule in ("majority", "intuitive-only", "deep-only"):
        return True
    return is_satisfied(policy, tally)


def _agreed_answer(policy: Policy, tally: Tally, *, right: Container[int]) -> int | None:
    if policy.rule == "same-round":
        return tally.newest[0]
    if policy.rule not in ("paper", ORACLE):
        return tally.leader()
    shared = tally.shared
    if policy.rule == ORACLE:
        shared = [answer for answer in shared if answer in right] or shared
    return max(shared, key=lambda answer: tally.votes[answer].total)


def _fallback(policy: Policy, tally: Tally) -> int | None:
    """Plurality of the pooled votes; among equals the deep reasoner's decide, then the first."""
    if policy.rule == ORACLE or policy.on_exhaustion == "abstain":
        return None

    def strength(answer: int) -> tuple[int, int]:
        return tally.votes[answer].total, tally.votes[answer].num_deep

    return max(tally.votes, key=strength, default=None)

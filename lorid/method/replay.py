"""Judged attempts under any rule and any bound, without a model.

    scores = replay(attempts, policy=Policy(rule="bayes", max_rounds=20), checker=checker)

    judged = [judge(item, checker) for item in attempts]          # once, for all rules and bounds
    for rule in RULES:
        scores = [score(item, policy=Policy(rule=rule)) for item in judged]

A replay decides what a live question would have decided on the same attempts. `paper-oracle`, which
looks at the label to choose among agreed answers and counts exhaustion as wrong, exists here alone:
it reproduces the published scoring, for comparison.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from lorid.method.attempts import JudgedAttempts, ProblemAttempts, judge
from lorid.method.equivalence import AnswerChecker
from lorid.method.stopping import Outcome, Policy, Tally, conclude, is_satisfied


@dataclass(frozen=True, kw_only=True)
class ProblemScore:
    """How one problem ended under a rule; `correct` is None without a gold answer.

    `num_rounds` and `num_generations` count what the rule would have drawn of what was logged.
    """

    problem_id: str
    answer: str | None
    outcome: Outcome
    confidence: float | None
    num_rounds: int
    num_generations: int
    correct: bool | None


def replay(
    attempts: Sequence[ProblemAttempts], *, policy: Policy, checker: AnswerChecker
) -> list[ProblemScore]:
    """Each problem judged under one policy, from its texts."""
    return [score(judge(item, checker), policy=policy) for item in attempts]


def score(item: JudgedAttempts, *, policy: Policy) -> ProblemScore:
    """One problem under one policy."""
    tally = Tally()
    for tally in _tallies(item, policy=policy):
        if is_satisfied(policy, tally):
            break
    return _scored(item, policy=policy, tally=tally)


def scores_by_bound(item: JudgedAttempts, *, policy: Policy) -> list[ProblemScore]:
    """The scores under `policy` with at most 1, 2, 3, ... rounds, in one pass; never empty.

    The list ends where more rounds change nothing: the rule is satisfied, the policy's bound is
    reached or nothing more was drawn. So the score at n rounds is the n-th, or the last.
    """
    scores: list[ProblemScore] = []
    for tally in _tallies(item, policy=policy):
        scores.append(_scored(item, policy=policy, tally=tally))
        if is_satisfied(policy, tally):
            break
    return scores or [_scored(item, policy=policy, tally=Tally())]


def is_whole(item: JudgedAttempts, *, policy: Policy) -> bool:
    """Whether the log holds all rounds that the rule would have drawn.

    One that another rule has drawn may end before: then a score is that of the rounds there are.
    """
    sides = [item.intuitive] * policy.asks_intuitive + [item.deep] * policy.asks_deep
    num_whole = min(map(len, sides))
    tallies = islice(_tallies(item, policy=policy), num_whole)
    return any(is_satisfied(policy, tally) for tally in tallies) or num_whole >= policy.most_rounds


def _tallies(item: JudgedAttempts, *, policy: Policy) -> Iterator[Tally]:
    """The same tally after each round that was drawn on a side that the rule asks."""
    intuitive = item.intuitive if policy.asks_intuitive else ()
    deep = item.deep if policy.asks_deep else ()
    tally = Tally()
    for index in range(min(policy.most_rounds, max(len(intuitive), len(deep)))):
        tally.add(
            intuitive=intuitive[index] if index < len(intuitive) else None,
            deep=deep[index] if index < len(deep) else None,
        )
        yield tally


def _scored(item: JudgedAttempts, *, policy: Policy, tally: Tally) -> ProblemScore:
    decision = conclude(policy, tally, right=item.right or ())
    # A deep attempt took its knowledge, also where a log leaves that out.
    num_generations = sum(
        min(tally.num_rounds, drawn) * asked
        for drawn, asked in (
            (len(item.intuitive), policy.asks_intuitive),
            (max(item.num_knowledge, len(item.deep)), policy.asks_deep),
            (len(item.deep), policy.asks_deep),
        )
    )
    answer = None if decision.answer is None else item.texts[decision.answer]
    correct = item.is_right(decision.answer)
    if policy.rule == "deep-only":
        answer, correct = item.first_deep, item.is_first_deep_right
    return ProblemScore(
        problem_id=item.problem_id,
        answer=answer,
        outcome=decision.outcome,
        confidence=decision.confidence,
        num_rounds=tally.num_rounds,
        num_generations=num_generations,
        correct=correct,
    )

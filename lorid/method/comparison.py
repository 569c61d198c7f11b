"""Several rules on the same attempts at an equal budget of generations.

    comparison = compare(judged, policies=[Policy(rule="paper"), Policy(rule="majority")])

A rule that draws more is easily better. So each rule gets the bound on its rounds at which it costs
what the first one costs on average (or a given budget), and no more.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorid.method.attempts import JudgedAttempts
from lorid.method.calibration import calibrate
from lorid.method.paired import Paired, compare_pairs, rights_of
from lorid.method.replay import ProblemScore, scores_by_bound
from lorid.method.scoring import Summary, summarize
from lorid.method.stopping import Policy


@dataclass(frozen=True, kw_only=True)
class BoundFigures:
    """What a rule does with at most `max_rounds` rounds."""

    max_rounds: int
    accuracy: float | None
    coverage: float
    mean_rounds: float
    mean_generations: float


@dataclass(frozen=True, kw_only=True)
class ComparedRule:
    """A rule at the budget: its bound, and the number of problems that may take one round more.

    `within_budget` is False when even one round of each problem costs more than the budget.
    `paired` is the first rule against this one on the same problems; None for the first itself.
    """

    summary: Summary
    num_with_one_more: int
    within_budget: bool
    brier: float | None
    scores: tuple[ProblemScore, ...]
    paired: Paired | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `lorid replay --compare --json` prints it."""
        return {
            **self.summary.to_dict(),
            "num_with_one_more": self.num_with_one_more,
            "within_budget": self.within_budget,
            "brier": self.brier,
            "paired": self.paired.to_dict() if self.paired else None,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Rules at the same budget, in mean generations a problem."""

    budget: float
    rules: tuple[ComparedRule, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `lorid replay --compare --json` prints it."""
        return {"budget": self.budget, "rules": [rule.to_dict() for rule in self.rules]}


def compare(
    attempts: Sequence[JudgedAttempts], *, policies: Sequence[Policy], budget: float | None = None
) -> Comparison:
    """The policies at `budget` mean generations a problem; None takes what the first one costs.

    No bound goes beyond the policy's own `max_rounds`, so a rule that stops early may stay below
    the budget. Between two bounds, problems in the order of the hash of their ids get the larger
    one until the budget is spent.
    """
    tables = [[scores_by_bound(item, policy=policy) for item in attempts] for policy in policies]
    if budget is None:
        spent = sum(scores[-1].num_generations for scores in tables[0])
        budget = spent / max(1, len(attempts))
    rules = [
        _at_budget(table, policy=policy, budget=budget)
        for table, policy in zip(tables, policies, strict=True)
    ]
    return Comparison(budget=budget, rules=(*rules[:1], *_against(rules)))


def figures_by_bound(
    attempts: Sequence[JudgedAttempts], *, policy: Policy
) -> tuple[BoundFigures, ...]:
    """The rule's figures at every bound from 1 on, in one pass over the attempts.

    They end at the policy's bound, or where no problem would have drawn more.
    """
    table = [scores_by_bound(item, policy=policy) for item in attempts]
    figures: list[BoundFigures] = []
    for bound in _bounds(table):
        summary = summarize(_at_bound(table, bound), policy=replace(policy, max_rounds=bound))
        figures.append(
            BoundFigures(
                max_rounds=bound,
                accuracy=summary.accuracy,
                coverage=summary.coverage,
                mean_rounds=summary.mean_rounds,
                mean_generations=summary.mean_generations,
            )
        )
    return tuple(figures)


def _against(rules: Sequence[ComparedRule]) -> Iterator[ComparedRule]:
    """Every rule but the first, with the comparison of that one with it."""
    for one in rules[1:]:
        paired = compare_pairs(rights_of(rules[0].scores), rights_of(one.scores))
        yield replace(one, paired=paired)


def _at_bound(table: Sequence[Sequence[ProblemScore]], bound: int) -> list[ProblemScore]:
    return [scores[min(bound, len(scores)) - 1] for scores in table]


def _bounds(table: Sequence[Sequence[ProblemScore]]) -> range:
    return range(1, max((len(scores) for scores in table), default=0) + 1)


def _at_budget(
    table: Sequence[Sequence[ProblemScore]], *, policy: Policy, budget: float
) -> ComparedRule:
    # A whisker of slack: the budget is a mean, and the mean of a rule's own counts must fit it.
    left = budget * len(table) * (1 + 1e-12)

    def cost(bound: int) -> int:
        return sum(score.num_generations for score in _at_bound(table, bound))

    fitting = [bound for bound in _bounds(table) if cost(bound) <= left]
    bound = max(fitting, default=1)
    scores = _at_bound(table, bound)
    left -= sum(score.num_generations for score in scores)
    num_with_one_more = 0
    if fitting and bound + 1 in _bounds(table):
        more = _at_bound(table, bound + 1)
        for index in sorted(range(len(scores)), key=lambda i: _hash(scores[i].problem_id)):
            extra = more[index].num_generations - scores[index].num_generations
            if extra > left:
                break
            num_with_one_more += extra > 0
            left -= extra
            scores[index] = more[index]
    return ComparedRule(
        summary=summarize(scores, policy=replace(policy, max_rounds=bound)),
        num_with_one_more=num_with_one_more,
        within_budget=bool(fitting),
        brier=calibrate(scores).brier,
        scores=tuple(scores),
    )


def _hash(problem_id: str) -> bytes:
    return hashlib.sha256(problem_id.encode()).digest()

"""The table of methods at an equal budget of generations.

    rows = method_rows(data, judged, checker)

The budget is what mutual feedback took on average. Every other rule gets the bound on its rounds at
which it costs no more; the base model and one side alone cost less by nature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorid.method.attempts import JudgedAttempts
from lorid.method.calibration import calibrate
from lorid.method.comparison import ComparedRule, compare
from lorid.method.equivalence import AnswerChecker
from lorid.method.marking import score_alone
from lorid.method.paired import Paired, compare_pairs, rights_of
from lorid.method.replay import ProblemScore
from lorid.method.scoring import Summary, accuracy_of, summarize
from lorid.method.stopping import Policy
from lorid.report.data import FEEDBACK_RULES, ReportData

MUTUAL_FEEDBACK = "mutual feedback"
PARTS = {
    "intuitive-only": "intuitive reasoner alone",
    "deep-only": "knowledge -> deep reasoner",
    "majority": "majority of same attempts",
}


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One row of the table; accuracies are shares of 1, `interval` is Wilson's at 95%.

    `coverage` is that of `lorid.method.scoring.Summary`; `max_rounds` the bound that the budget
    allows, a mean where problems differ. `is_part` marks the base, the sides, their majority and
    the whole, without the other rules. `paired` is mutual feedback against this method on the same
    problems; None for that itself.
    """

    method: str
    num_problems: int
    accuracy: float | None
    interval: tuple[float, float]
    coverage: float
    mean_rounds: float
    mean_generations: float
    max_rounds: float
    within_budget: bool
    brier: float | None
    is_part: bool
    accuracy_seen: float | None = None
    accuracy_unseen: float | None = None
    paired: Paired | None = None


def method_rows(
    data: ReportData, judged: Sequence[JudgedAttempts], checker: AnswerChecker
) -> list[MethodRow]:
    """Base alone, each side alone, majority, the other rules, and mutual feedback last."""
    unseen = {
        str(row["problem_id"]) for row in data.attempts if row.get("family") in data.unseen_families
    }
    lead = data.lead_rule
    others = [rule for rule in FEEDBACK_RULES if rule != lead]
    rules = [lead, *PARTS, *others]
    compared = compare(judged, policies=[data.policy(rule) for rule in rules]).rules
    names = [MUTUAL_FEEDBACK, *PARTS.values(), *(f"feedback by {rule}" for rule in others)]
    rows = [
        _compared_row(name, one, unseen=unseen, is_part=rule not in others)
        for name, rule, one in zip(names, rules, compared, strict=True)
    ]
    rows = [*rows[1:], rows[0]]
    if data.base_answers:
        whole = rights_of(compared[0].scores)
        rows.insert(0, _base_row(data.base_answers, checker, unseen=unseen, whole=whole))
    return rows


def _base_row(
    answers: Sequence[Mapping[str, Any]],
    checker: AnswerChecker,
    *,
    unseen: set[str],
    whole: Mapping[str, bool],
) -> MethodRow:
    scores = [score_alone(row, checker) for row in answers]
    summary = summarize(scores, policy=Policy(rule="intuitive-only", max_rounds=1))
    row = _row("base model alone", scores, summary=summary, unseen=unseen)
    return replace(row, paired=compare_pairs(whole, rights_of(scores)))


def _compared_row(
    method: str, compared: ComparedRule, *, unseen: set[str], is_part: bool
) -> MethodRow:
    row = _row(
        method,
        compared.scores,
        summary=compared.summary,
        unseen=unseen,
        is_part=is_part,
        within_budget=compared.within_budget,
        num_with_one_more=compared.num_with_one_more,
    )
    return replace(row, paired=compared.paired)


def _row(
    method: str,
    scores: Sequence[ProblemScore],
    *,
    summary: Summary,
    unseen: set[str],
    is_part: bool = True,
    within_budget: bool = True,
    num_with_one_more: int = 0,
) -> MethodRow:
    seen = [one for one in scores if one.problem_id not in unseen]
    return MethodRow(
        method=method,
        num_problems=summary.num_problems,
        accuracy=summary.accuracy,
        interval=summary.wilson_interval,
        coverage=summary.coverage,
        mean_rounds=summary.mean_rounds,
        mean_generations=summary.mean_generations,
        max_rounds=summary.max_rounds + num_with_one_more / max(1, summary.num_problems),
        within_budget=within_budget,
        brier=calibrate(scores).brier,
        is_part=is_part,
        accuracy_seen=accuracy_of(seen) if unseen else None,
        accuracy_unseen=accuracy_of([one for one in scores if one.problem_id in unseen]),
    )

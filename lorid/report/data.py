"""What a report shows, as plain data, and the table of methods computed from it.

    rows = summarize_methods(data, checker)

Every figure is a replay of the logged attempts; nothing here talks to a store or a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorid.jsonl import read_jsonl
from lorid.method.attempts import JudgedAttempts, ProblemAttempts, judge, parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Sampled, attempt_from
from lorid.method.replay import ProblemScore, score
from lorid.method.roles import Role
from lorid.method.scoring import accuracy_of, summarize
from lorid.method.stopping import DEFAULT_TAU, OnExhaustion, Outcome, Policy

REFERENCE_GENERATIONS = 60


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    """One optimizer step of one role."""

    step: int
    loss: float
    learning_rate: float
    tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report shows."""

    run_name: str
    config_yaml: str
    rule: str
    max_rounds: int
    attempts: list[dict[str, Any]]
    base_answers: list[dict[str, Any]] | None
    loss_curves: Mapping[Role, list[LossPoint]]
    knowledge_details: Mapping[str, Any]
    stage_seconds: Mapping[str, float]
    records: Sequence[str]
    unseen_families: frozenset[str] = field(default_factory=frozenset)
    on_exhaustion: OnExhaustion = "plurality"
    tau: float = DEFAULT_TAU

    def policy(self, rule: str | None = None) -> Policy:
        """What decided the run's questions; `rule` puts another in the place of the run's."""
        return Policy(
            rule=rule or self.rule,
            max_rounds=self.max_rounds,
            on_exhaustion=self.on_exhaustion,
            tau=self.tau,
        )


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """One row of the table; accuracies are shares of 1, `interval` is Wilson's at 95%.

    `coverage` is that of `lorid.method.scoring.Summary`.
    """

    method: str
    num_problems: int
    accuracy: float | None
    interval: tuple[float, float]
    coverage: float
    mean_rounds: float
    mean_generations: float
    accuracy_seen: float | None = None
    accuracy_unseen: float | None = None


def read_loss_curve(path: Path) -> list[LossPoint]:
    """The steps in a `metrics.jsonl` that training wrote."""
    return [
        LossPoint(
            step=row["step"],
            loss=row["loss"],
            learning_rate=row["learning_rate"],
            tokens_per_s=row["tokens_per_s"],
        )
        for _, row in read_jsonl(path)
    ]


def parsed_attempts(data: ReportData) -> list[ProblemAttempts]:
    """The attempts, ready for a replay."""
    return [parse_attempts_line(row) for row in data.attempts]


def judged_attempts(
    attempts: Sequence[ProblemAttempts], checker: AnswerChecker
) -> list[JudgedAttempts]:
    """The attempts with their answers compared, for every rule."""
    return [judge(item, checker) for item in attempts]


def summarize_methods(data: ReportData, checker: AnswerChecker) -> list[MethodRow]:
    """Base alone, each side alone, majority of the same attempts, mutual feedback."""
    judged = judged_attempts(parsed_attempts(data), checker)
    unseen = {
        row["problem_id"] for row in data.attempts if row.get("family") in data.unseen_families
    }
    rows: list[MethodRow] = []
    if data.base_answers:
        rows.append(_base_row(data.base_answers, checker, unseen=unseen))
    rules = (
        ("intuitive reasoner alone", "intuitive-only"),
        ("knowledge -> deep reasoner", "deep-only"),
        ("majority of same attempts", "majority"),
        ("mutual feedback", data.rule),
    )
    for method, rule in rules:
        policy = data.policy(rule)
        scores = [score(item, policy=policy) for item in judged]
        rows.append(_row(method, scores, policy=policy, unseen=unseen))
    return rows


def _base_row(
    answers: Sequence[Mapping[str, Any]], checker: AnswerChecker, *, unseen: set[str]
) -> MethodRow:
    scores: list[ProblemScore] = []
    for row in answers:
        sampled = Sampled(text=row["text"], truncated=row["finish_reason"] == "length")
        answer = attempt_from(sampled).answer
        scores.append(
            ProblemScore(
                problem_id=row["problem_id"],
                answer=answer,
                outcome=Outcome.AGREED if answer else Outcome.NO_ANSWER,
                confidence=1.0 if answer else None,
                num_rounds=1,
                num_generations=1,
                correct=answer is not None and checker.equal(answer, row["gold"]),
            )
        )
    return _row("base model alone", scores, policy=Policy(rule="intuitive-only"), unseen=unseen)


def _row(
    method: str, scores: Sequence[ProblemScore], *, policy: Policy, unseen: set[str]
) -> MethodRow:
    summary = summarize(scores, policy=policy)
    seen = [one for one in scores if one.problem_id not in unseen]
    return MethodRow(
        method=method,
        num_problems=summary.num_problems,
        accuracy=summary.accuracy,
        interval=summary.wilson_interval,
        coverage=summary.coverage,
        mean_rounds=summary.mean_rounds,
        mean_generations=summary.mean_generations,
        accuracy_seen=accuracy_of(seen) if unseen else None,
        accuracy_unseen=accuracy_of([one for one in scores if one.problem_id in unseen]),
    )


def loss_summary(curve: Sequence[LossPoint]) -> tuple[float, float]:
    """Mean loss of the first and of the last twentieth of a curve."""
    width = max(1, len(curve) // 20)
    first = [point.loss for point in curve[:width]]
    last = [point.loss for point in curve[-width:]]
    return sum(first) / len(first), sum(last) / len(last)

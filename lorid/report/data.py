"""What a report shows, as plain data: a run's attempts, and what its stages left behind.

    data = ReportData(run_name="demo", rule="paper", max_rounds=20, attempts=rows)

Only the attempts are needed; what else there is, is shown. Nothing here talks to a store or to a
model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorid.jsonl import read_jsonl
from lorid.method.gate import GateLimits
from lorid.method.paired import Paired
from lorid.method.roles import Role
from lorid.method.stopping import DEFAULT_TAU, OnExhaustion, Policy

REFERENCE_GENERATIONS = 60
FEEDBACK_RULES = ("paper", "same-round", "bayes")


@dataclass(frozen=True, kw_only=True)
class LossPoint:
    """One optimizer step of one role."""

    step: int
    loss: float
    learning_rate: float
    tokens_per_s: float
    num_tokens: int = 0
    validation_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What one stage took; None is what nobody counted."""

    stage: str
    seconds: float
    num_texts: int | None = None
    num_tokens: int | None = None
    spent: float | None = None
    currency: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report shows; `gate` is what the run held the teacher's knowledge to.

    `others` are evaluations that this one was compared with on the same questions, by name.
    """

    run_name: str
    rule: str
    max_rounds: int
    attempts: Sequence[Mapping[str, Any]]
    base_answers: Sequence[Mapping[str, Any]] | None = None
    config_yaml: str = ""
    loss_curves: Mapping[Role, Sequence[LossPoint]] = field(
        default_factory=dict[Role, Sequence[LossPoint]]
    )
    knowledge_details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    gate: GateLimits = field(default_factory=GateLimits)
    stages: Sequence[StageCost] = ()
    records: Sequence[str] = ()
    unseen_families: frozenset[str] = frozenset()
    others: Mapping[str, Paired] = field(default_factory=dict[str, Paired])
    on_exhaustion: OnExhaustion = "plurality"
    tau: float = DEFAULT_TAU

    @property
    def lead_rule(self) -> str:
        """What questions are judged by: the run's own rule, or `paper` where that is no feedback.

        A run by `majority` draws every round, so that a report can tell where the sides would have
        met.
        """
        return self.rule if self.rule in FEEDBACK_RULES else "paper"

    def policy(self, rule: str | None = None) -> Policy:
        """What decides the questions; `rule` puts another in the place of the leading one."""
        return Policy(
            rule=rule or self.lead_rule,
            max_rounds=self.max_rounds,
            on_exhaustion=self.on_exhaustion,
            tau=self.tau,
        )


def read_loss_curve(path: Path) -> list[LossPoint]:
    """The steps in a `metrics.jsonl` that training wrote."""
    return [
        LossPoint(
            step=row["step"],
            loss=row["loss"],
            learning_rate=row["learning_rate"],
            tokens_per_s=row["tokens_per_s"],
            num_tokens=row.get("num_tokens", 0),
            validation_loss=row.get("validation_loss"),
        )
        for _, row in read_jsonl(path)
    ]


def loss_summary(curve: Sequence[LossPoint]) -> tuple[float, float]:
    """Mean loss of the first and of the last twentieth of a curve."""
    width = max(1, len(curve) // 20)
    first = [point.loss for point in curve[:width]]
    last = [point.loss for point in curve[-width:]]
    return sum(first) / len(first), sum(last) / len(last)

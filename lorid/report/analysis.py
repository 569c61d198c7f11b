"""A run's attempts, judged once: what the page, the figures and the terminal are made from.

analysis = analyse(data)
analysis.scores[0].correct, analysis.cases[0].buckets
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lorid.method.attempts import JudgedAttempts, ProblemAttempts, judge, parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.paired import Paired
from lorid.method.replay import ProblemScore, score
from lorid.method.scoring import Summary, summarize
from lorid.report.buckets import (
    KnowledgeFaults,
    buckets_of,
    has_bad_knowledge,
    knowledge_faults,
)
from lorid.report.data import ReportData
from lorid.report.methods import MethodRow, method_rows


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question: its attempts, how the leading rule ended, why, and its buckets.

    `reason` is the checker's, for the answer being the label or not; "" without one of the two.
    """

    attempts: ProblemAttempts
    judged: JudgedAttempts
    score: ProblemScore
    reason: str
    faults: KnowledgeFaults
    buckets: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Everything that is computed for a report."""

    data: ReportData
    cases: Sequence[Case]
    methods: Sequence[MethodRow]
    summary: Summary

    @property
    def judged(self) -> list[JudgedAttempts]:
        """The attempts with their answers compared, for every rule."""
        return [case.judged for case in self.cases]

    @property
    def pairs(self) -> list[tuple[str, Paired]]:
        """Mutual feedback against each other method, and against other evaluations."""
        own = [(row.method, row.paired) for row in self.methods if row.paired is not None]
        return [*own, *self.data.others.items()]

    @property
    def scores(self) -> list[ProblemScore]:
        """How the leading rule ended."""
        return [case.score for case in self.cases]


def analyse(data: ReportData) -> Analysis:
    """Judge the attempts of a run.

    Raises:
        DataError: a row is no line of an attempts file.
    """
    with AnswerChecker() as checker:
        cases = [
            _case(parse_attempts_line(row), data=data, checker=checker) for row in data.attempts
        ]
        methods = method_rows(data, [case.judged for case in cases], checker)
    summary = summarize([case.score for case in cases], policy=data.policy())
    return Analysis(data=data, cases=cases, methods=methods, summary=summary)


def _case(item: ProblemAttempts, *, data: ReportData, checker: AnswerChecker) -> Case:
    judged = judge(item, checker)
    scored = score(judged, policy=data.policy())
    reason = ""
    if scored.answer is not None and item.gold is not None:
        reason = checker.verdict(scored.answer, item.gold).reason
    faults = knowledge_faults(item, limits=data.gate)
    is_bad = has_bad_knowledge(judged, faults=faults, num_rounds=scored.num_rounds)
    return Case(
        attempts=item,
        judged=judged,
        score=scored,
        reason=reason,
        faults=faults,
        buckets=buckets_of(judged, scored, has_bad_knowledge=is_bad),
    )

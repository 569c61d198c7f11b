"""Marking an evaluation: everything that its record says is a replay of what was logged.

    marker = Marker(policy=policy, checker=checker)
    marker.mark(row)                         # one row of an attempts file, as it comes
    marker.figures()                         # accuracy, coverage, rounds, ... for the record

A change of the rule or of the grader marks the same rows again, without a model. Of each question
its score stays in memory, not its texts.
"""

from collections.abc import Mapping
from typing import Any

from lorid.method.attempts import judge, parse_attempts_line
from lorid.method.audit import Suspect, find_suspect
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Sampled, attempt_from
from lorid.method.grader import GRADER_VERSION
from lorid.method.replay import ProblemScore, is_whole, score
from lorid.method.scoring import accuracy_of, summarize
from lorid.method.stopping import Outcome, Policy


class Marker:
    """Scores rows under one policy, each problem once."""

    def __init__(self, *, policy: Policy, checker: AnswerChecker) -> None:
        self.policy, self.checker = policy, checker
        self.scores: dict[str, ProblemScore] = {}
        self.suspects: dict[str, Suspect] = {}
        self.short: set[str] = set()
        self.num_correct = 0

    def mark(self, row: Mapping[str, Any]) -> bool:
        """Score a row; returns whether the log holds all rounds that the rule would have drawn.

        Raises:
            DataError: it is no row of an attempts file.
        """
        judged = judge(parse_attempts_line(row), self.checker)
        name = judged.problem_id
        if name in self.scores:
            self.num_correct -= self.scores[name].correct is True
            self.suspects.pop(name, None)
            self.short.discard(name)
        self.scores[name] = one = score(judged, policy=self.policy)
        self.num_correct += one.correct is True
        suspect = find_suspect(judged, bounds=self.policy)
        if suspect is not None:
            self.suspects[name] = suspect
        if judged.intuitive or judged.deep:
            if is_whole(judged, policy=self.policy):
                return True
            self.short.add(name)
        return False

    @property
    def accuracy(self) -> float | None:
        """The accuracy so far."""
        return accuracy_of(list(self.scores.values()))

    def figures(self) -> dict[str, Any]:
        """What the record says; a problem without attempts counts as not answered.

        `num_short` are problems whose log ends before the rule would have stopped.
        """
        summary = summarize(list(self.scores.values()), policy=self.policy)
        return {
            "num_problems": summary.num_problems,
            "num_correct": self.num_correct,
            "accuracy": summary.accuracy,
            "interval": list(summary.interval),
            "coverage": summary.coverage,
            "accuracy_when_agreed": summary.accuracy_when_agreed,
            "mean_rounds": summary.mean_rounds,
            "mean_generations": summary.mean_generations,
            "num_short": len(self.short),
            "num_suspect_labels": len(self.suspects),
            "rule": self.policy.rule,
            "max_rounds": self.policy.max_rounds,
            "grader_version": GRADER_VERSION,
        }


def score_alone(row: Mapping[str, Any], checker: AnswerChecker) -> ProblemScore:
    """One text of the base model against its label: a row of an evaluation's `base.jsonl`."""
    sampled = Sampled(text=row["text"], truncated=row["finish_reason"] == "length")
    answer, gold = attempt_from(sampled).answer, row["gold"]
    return ProblemScore(
        problem_id=row["problem_id"],
        answer=answer,
        outcome=Outcome.AGREED if answer else Outcome.NO_ANSWER,
        confidence=1.0 if answer else None,
        num_rounds=1,
        num_generations=1,
        correct=answer is not None and checker.equal(answer, gold),
    )

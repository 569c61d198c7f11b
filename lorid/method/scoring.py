"""Scores of logged attempts under any rule, without a model.

    attempts = [parse_attempts_line(line) for line in file]
    scores = replay(attempts, policy=Policy(rule="paper"), checker=checker)
    summary = summarize(scores, policy=policy)

A shorter list in an attempts line means that the round was never drawn: a replay ends there.
`paper-oracle` reproduces the published scoring, which looks at the label to choose among agreed
answers and counts exhaustion as wrong; it is for comparison only.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from lorid.errors import DataError
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Outcome, Policy, Sampled, attempt_from
from lorid.method.stopping import Answers, Candidate, choose_answer, is_satisfied, sides_of

REPLAY_RULES = (
    "paper", "paper-oracle", "same-round", "majority", "intuitive-only", "deep-only",
)  # fmt: skip
Z_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class ProblemAttempts:
    """The logged texts of one problem; element j of each list belongs to round j."""

    problem_id: str
    question: str
    gold: str | None
    intuitive: tuple[Sampled, ...]
    knowledge: tuple[Sampled, ...]
    deep: tuple[Sampled, ...]


@dataclass(frozen=True, kw_only=True)
class ProblemScore:
    """How one problem ended under a rule; `correct` is None without a gold answer."""

    problem_id: str
    answer: str | None
    outcome: Outcome
    num_rounds: int
    num_generations: int
    correct: bool | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures over problems; accuracies are shares of 1, `interval` is Wilson's at 95%."""

    rule: str
    max_rounds: int
    num_problems: int
    accuracy: float
    coverage: float
    accuracy_when_agreed: float | None
    mean_rounds: float
    mean_generations: float
    interval: tuple[float, float]
    rounds_histogram: dict[int, int]

    def to_dict(self) -> dict[str, Any]:
        """What `lorid replay --json` prints."""
        return {**self.__dict__, "interval": list(self.interval)}


def parse_attempts_line(line: str | Mapping[str, Any]) -> ProblemAttempts:
    """One line of an attempts file; raises DataError saying what is wrong with it."""
    try:
        row = json.loads(line) if isinstance(line, str) else line
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}") from error
    if not isinstance(row, Mapping):
        raise DataError("not a JSON object")
    fields = cast("Mapping[str, Any]", row)
    if not isinstance(fields.get("problem_id"), str):
        raise DataError("'problem_id' is missing or not a string")
    gold = fields.get("gold")
    return ProblemAttempts(
        problem_id=str(fields["problem_id"]),
        question=str(fields.get("question", "")),
        gold=None if gold is None else str(gold),
        intuitive=_texts(fields, "intuitive"),
        knowledge=_texts(fields, "knowledge"),
        deep=_texts(fields, "deep"),
    )


def replay(
    attempts: Sequence[ProblemAttempts], *, policy: Policy, checker: AnswerChecker
) -> list[ProblemScore]:
    """Each problem judged under the policy's rule.

    Raises:
        DataError: the rule is unknown.
    """
    if policy.rule not in REPLAY_RULES:
        raise DataError(f"unknown rule {policy.rule!r}: choose one of {', '.join(REPLAY_RULES)}")
    return [_replay_one(item, policy=policy, checker=checker) for item in attempts]


def summarize(scores: Sequence[ProblemScore], *, policy: Policy) -> Summary:
    """Figures over problems; without any problem all of them are 0."""
    count = len(scores)
    num_correct = sum(score.correct is True for score in scores)
    agreed = [score for score in scores if score.outcome is Outcome.AGREED]
    return Summary(
        rule=policy.rule,
        max_rounds=policy.max_rounds,
        num_problems=count,
        accuracy=num_correct / count if count else 0.0,
        coverage=len(agreed) / count if count else 0.0,
        accuracy_when_agreed=(
            sum(score.correct is True for score in agreed) / len(agreed) if agreed else None
        ),
        mean_rounds=sum(score.num_rounds for score in scores) / count if count else 0.0,
        mean_generations=sum(score.num_generations for score in scores) / count if count else 0.0,
        interval=wilson_interval(num_correct, count),
        rounds_histogram=dict(sorted(Counter(score.num_rounds for score in scores).items())),
    )


def wilson_interval(num_correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share (Wilson 1927); (0, 1) without data."""
    if not count:
        return 0.0, 1.0
    share, z2 = num_correct / count, Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # At shares of 0 and 1 rounding could push a bound past the share itself.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def _texts(row: Mapping[str, Any], name: str) -> tuple[Sampled, ...]:
    elements = row.get(name, [])
    if not isinstance(elements, list):
        raise DataError(f"'{name}' is not a list")
    return tuple(_sampled(element, name) for element in cast("list[Any]", elements))


def _sampled(element: Any, name: str) -> Sampled:
    if isinstance(element, str):
        return Sampled(text=element)
    if isinstance(element, Mapping):
        fields = cast("Mapping[str, Any]", element)
        if isinstance(fields.get("text"), str):
            return Sampled(
                text=str(fields["text"]),
                truncated=fields.get("finish_reason") == "length",
                num_tokens=int(fields.get("num_tokens") or 0),
            )
    raise DataError(f"'{name}' holds an element that is neither a text nor an object with 'text'")


def _replay_one(item: ProblemAttempts, *, policy: Policy, checker: AnswerChecker) -> ProblemScore:
    rule = {"paper-oracle": "paper", "majority": "majority"}.get(policy.rule, policy.rule)
    asks_intuitive, asks_deep = sides_of(rule)
    drawn = _num_rounds_drawn(item, asks_intuitive=asks_intuitive, asks_deep=asks_deep)
    answers = Answers(checker=checker)
    agreed = False
    for index in range(min(policy.max_rounds, drawn)):
        answers.add(
            intuitive=_answer_at(item.intuitive, index) if asks_intuitive else None,
            deep=_answer_at(item.deep, index) if asks_deep else None,
        )
        agreed = rule != "majority" and is_satisfied(rule, answers)
        if agreed:
            break
    agreed = agreed and bool(answers.candidates)
    answer = _final_answer(item, policy=policy, rule=rule, answers=answers, agreed=agreed)
    generations = answers.num_rounds * (int(asks_intuitive) + 2 * int(asks_deep))
    outcome = Outcome.AGREED if agreed else Outcome.EXHAUSTED if answer else Outcome.NO_ANSWER
    return ProblemScore(
        problem_id=item.problem_id,
        answer=answer,
        outcome=outcome,
        num_rounds=answers.num_rounds,
        num_generations=generations,
        correct=None
        if item.gold is None
        else answer is not None and checker.equal(answer, item.gold),
    )


def _final_answer(
    item: ProblemAttempts, *, policy: Policy, rule: str, answers: Answers, agreed: bool
) -> str | None:
    if policy.rule == "paper-oracle":
        shared: list[Candidate] = [c for c in answers.candidates if c.is_shared]
        right = [c for c in shared if item.gold and answers.checker.equal(c.text, item.gold)]
        return next((candidate.text for candidate in (*right, *shared)), None)
    if rule == "majority" and answers.candidates:
        return max(answers.candidates, key=lambda candidate: candidate.num_votes).text
    if agreed or policy.on_exhaustion == "plurality":
        return choose_answer(rule, answers, agreed=agreed)
    return None


def _num_rounds_drawn(item: ProblemAttempts, *, asks_intuitive: bool, asks_deep: bool) -> int:
    lengths = [len(item.intuitive)] * asks_intuitive + [len(item.deep)] * asks_deep
    return max(lengths)


def _answer_at(texts: Sequence[Sampled], index: int) -> str | None:
    return attempt_from(texts[index]).answer if index < len(texts) else None

"""Logged attempts: reading them, joining two files, and judging their answers once.

    attempts = read_attempts(read_lines(path), source="attempts.jsonl")
    judged = [judge(item, checker) for item in attempts]     # answers extracted and compared once

Element j of each list belongs to round j. A shorter list means that the round was never drawn: that
side has no attempt in it, and the other side's attempt still counts. A text with the finish reason
"length" was cut off, so it has an answer only behind a complete marker.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from lorid.errors import DataError
from lorid.jsonl import parse_json
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Sampled, attempt_from
from lorid.method.stopping import AnswerClasses

LISTS = ("intuitive", "knowledge", "deep")


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
class JudgedAttempts:
    """One problem's answers as numbers of classes of equal ones, None where a text has no answer.

    `texts` holds the first text of each class, which stands for all of it; `right` the classes that
    equal the label, None without a label. Every rule and every bound reads the same classes; only a
    deep reasoner that answers alone says it in its own words, which are `first_deep`.
    """

    problem_id: str
    intuitive: tuple[int | None, ...]
    num_knowledge: int
    deep: tuple[int | None, ...]
    texts: tuple[str, ...]
    right: frozenset[int] | None
    first_deep: str | None
    is_first_deep_right: bool | None

    def is_right(self, answer: int | None) -> bool | None:
        """Whether a class equals the label; no answer does not; None without a label."""
        return None if self.right is None else answer in self.right


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Two files joined: the problems that both have, and the ids that only one of them has.

    `renamed` are ids that stand for different questions in the two files.
    """

    attempts: tuple[ProblemAttempts, ...]
    without_intuitive: tuple[str, ...]
    without_deep: tuple[str, ...]
    renamed: tuple[str, ...]


def parse_attempts_line(line: str | Mapping[str, Any]) -> ProblemAttempts:
    """One line of an attempts file; raises DataError saying what is wrong with it."""
    return _parsed(parse_json(line) if isinstance(line, str) else line)


def _parsed(row: object) -> ProblemAttempts:
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, Mapping):
        raise DataError("not a JSON object")
    fields = cast("Mapping[str, Any]", row)
    if not isinstance(fields.get("problem_id"), str):
        raise DataError("'problem_id' is missing or not a string")
    if not any(name in fields for name in LISTS):
        raise DataError(f"none of {', '.join(LISTS)} is there: not a line of an attempts file")
    question, gold = fields.get("question", ""), fields.get("gold")
    if not isinstance(question, str):
        raise DataError("'question' is not a string")
    if isinstance(gold, bool) or not isinstance(gold, str | int | float | None):
        raise DataError("'gold' is neither a string nor null")
    return ProblemAttempts(
        problem_id=str(fields["problem_id"]),
        question=question,
        gold=None if gold is None else str(gold),
        intuitive=_texts(fields, "intuitive"),
        knowledge=_texts(fields, "knowledge"),
        deep=_texts(fields, "deep"),
    )


def read_attempts(rows: Iterable[tuple[int, object]], *, source: str) -> list[ProblemAttempts]:
    """All problems of an attempts file, from the numbered lines of `lorid.jsonl.read_lines`.

    Raises:
        DataError: a line cannot be used, a problem occurs twice, or there is none; the message
            names `source` and the lines.
    """
    attempts: list[ProblemAttempts] = []
    line_of: dict[str, int] = {}
    for number, row in rows:
        try:
            item = _parsed(row)
        except DataError as error:
            raise DataError(f"{source}, line {number}: {error}") from error
        if (first := line_of.setdefault(item.problem_id, number)) != number:
            raise DataError(
                f"{source}, line {number}: problem_id {item.problem_id!r} is on line {first} "
                "already; give each problem one line"
            )
        attempts.append(item)
    if not attempts:
        raise DataError(f"{source} holds no attempts; give a file with a line a problem")
    return attempts


def join_intuitive(
    attempts: Sequence[ProblemAttempts], intuitive: Sequence[ProblemAttempts]
) -> Joined:
    """The intuitive attempts of one file against the knowledge and deep attempts of another.

    Problems are matched by `problem_id`, and those without a match by their exact question, unless
    the other file has that question more than once.

    Raises:
        DataError: no problem is in both.
    """
    by_id = {item.problem_id: item for item in intuitive}
    by_question: dict[str, list[ProblemAttempts]] = {}
    for item in intuitive:
        by_question.setdefault(item.question.strip(), []).append(item)

    def partner(item: ProblemAttempts) -> ProblemAttempts | None:
        same = by_question.get(item.question.strip(), []) if item.question.strip() else []
        return by_id.get(item.problem_id) or (same[0] if len(same) == 1 else None)

    pairs = [(item, partner(item)) for item in attempts]
    matched = {other.problem_id for _, other in pairs if other}
    if not matched:
        raise DataError("no problem is in both files; they are matched by problem_id, or question")
    return Joined(
        attempts=tuple(_with_intuitive(item, other) for item, other in pairs if other),
        without_intuitive=tuple(item.problem_id for item, other in pairs if other is None),
        without_deep=tuple(i.problem_id for i in intuitive if i.problem_id not in matched),
        renamed=tuple(item.problem_id for item, other in pairs if other and _differ(item, other)),
    )


def judge(item: ProblemAttempts, checker: AnswerChecker) -> JudgedAttempts:
    """Extract each answer, group equal ones in order of appearance, compare them with the label.

    Within a round the intuitive answer comes first, as when a question is solved.
    """
    classes = AnswerClasses(checker)
    intuitive = [attempt_from(text).answer for text in item.intuitive]
    deep = [attempt_from(text).answer for text in item.deep]
    found: tuple[list[int | None], list[int | None]] = ([], [])
    for index in range(max(len(intuitive), len(deep))):
        for answers, numbers in zip((intuitive, deep), found, strict=True):
            if index < len(answers):
                numbers.append(classes.class_of(answers[index]))
    first_deep = next(iter(deep), None) or None
    right, is_first_deep_right = None, None
    if (gold := item.gold) is not None:
        *equal, is_first_deep_right = checker.equal_many(
            [(text, gold) for text in (*classes.texts, first_deep or "")]
        )
        is_first_deep_right = is_first_deep_right and first_deep is not None
        right = frozenset(number for number, is_equal in enumerate(equal) if is_equal)
    return JudgedAttempts(
        problem_id=item.problem_id,
        intuitive=tuple(found[0]),
        num_knowledge=len(item.knowledge),
        deep=tuple(found[1]),
        texts=tuple(classes.texts),
        right=right,
        first_deep=first_deep,
        is_first_deep_right=is_first_deep_right,
    )


def _with_intuitive(item: ProblemAttempts, other: ProblemAttempts) -> ProblemAttempts:
    gold = other.gold if item.gold is None else item.gold
    return replace(item, intuitive=other.intuitive, gold=gold)


def _differ(item: ProblemAttempts, other: ProblemAttempts) -> bool:
    questions = {item.question.strip(), other.question.strip()} - {""}
    return len(questions) > 1


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
        num_tokens = fields.get("num_tokens", 0)
        if num_tokens is None:
            num_tokens = 0
        if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens < 0:
            raise DataError(f"'{name}' holds an element whose 'num_tokens' is not a count")
        if isinstance(fields.get("text"), str):
            return Sampled(
                text=str(fields["text"]),
                truncated=fields.get("finish_reason") == "length",
                num_tokens=num_tokens,
            )
    raise DataError(f"'{name}' holds an element that is neither a text nor an object with 'text'")

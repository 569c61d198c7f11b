"""Problems, and the readers that make them from GSM8K, MATH and LoRID rows.

Example::

    problems, rejected = read_problems(Path("train.jsonl"))

A row that cannot be read becomes a `RejectedRow` with its number and the reason; the rest goes on.
Nothing here downloads anything: `lorid.distributed` hands hub rows to `problem_from_row`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lorid.errors import DataError
from lorid.jsonl import read_lines
from lorid.method.answers import extract_answer

# The endpoint's own bounds: what is longer could never be graded.
MAX_TEXT_CHARS = 20_000
MAX_ID_CHARS = 200
CALCULATOR_MARK = re.compile(r"<<[^<>]{0,200}>>")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with its gold rationale and gold answer.

    `style` says how a target is written: "gsm8k" appends `--> answer END`, "math" does not.
    `source_id` is the `source_key` of the question that this one was made from; "" when none was.
    """

    problem_id: str
    question: str
    rationale: str
    answer: str
    style: str = "gsm8k"
    family: str = ""
    source_id: str = ""

    def to_row(self) -> dict[str, str]:
        """Flat row of strings for JSONL and Arrow."""
        return {
            "problem_id": self.problem_id,
            "question": self.question,
            "rationale": self.rationale,
            "answer": self.answer,
            "style": self.style,
            "family": self.family,
            "source_id": self.source_id,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "Problem":
        """The inverse of `to_row`; raises KeyError when a field is missing."""
        return cls(
            problem_id=row["problem_id"],
            question=row["question"],
            rationale=row["rationale"],
            answer=row["answer"],
            style=row.get("style", "gsm8k"),
            family=row.get("family", ""),
            source_id=row.get("source_id", ""),
        )


@dataclass(frozen=True, kw_only=True)
class EnrichedProblem:
    """A problem with the general rules that its solution rests on, in order."""

    problem: Problem
    knowledge: tuple[str, ...]

    def to_row(self) -> dict[str, str | list[str]]:
        """The problem's row with `knowledge` as a list of strings."""
        return {**self.problem.to_row(), "knowledge": list(self.knowledge)}

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> "EnrichedProblem":
        """The inverse of `to_row`."""
        text_fields = {key: str(value) for key, value in row.items() if key != "knowledge"}
        rules = row["knowledge"]
        if not isinstance(rules, Iterable) or isinstance(rules, str):
            raise DataError(f"problem {row.get('problem_id')}: knowledge is not a list of strings")
        knowledge = tuple(str(rule) for rule in cast("Iterable[object]", rules))
        return cls(problem=Problem.from_row(text_fields), knowledge=knowledge)


@dataclass(frozen=True, kw_only=True)
class RejectedRow:
    """A data row that was set aside: its number (from 1), its source and why."""

    row_number: int
    source: str
    reason: str


def content_id(question: str, rationale: str = "") -> str:
    """Key of a problem: a hash of its content, since LoRID's `id` names the source, not the row."""
    return hashlib.sha256(f"{question}\x00{rationale}".encode()).hexdigest()[:16]


def source_key(question: str) -> str:
    """Key of a source question: a hash of its text, white space aside."""
    return hashlib.sha256(" ".join(question.split()).encode()).hexdigest()[:16]


def problem_from_row(row: Mapping[str, object]) -> Problem:
    """A problem from one GSM8K, MATH, LoRID or lorid row; raises DataError naming what is wrong."""
    question = text_field(row, "question", "problem")
    if "rationale" in row:
        rationale = text_field(row, "rationale")
        is_gsm8k_style = "answer" in row
        answer = _answer_field(row["answer"]) if is_gsm8k_style else extract_answer(rationale)
    elif "solution" in row:
        rationale, is_gsm8k_style = text_field(row, "solution"), False
        answer = extract_answer(rationale)
    else:
        rationale, answer = _split_gsm8k_answer(text_field(row, "answer"))
        is_gsm8k_style = True
    if not answer:
        raise DataError("no final answer found (expected '#### N', '\\boxed{...}' or 'answer')")
    given_id = row.get("problem_id")
    is_usable = isinstance(given_id, str) and 0 < len(given_id) <= MAX_ID_CHARS
    return Problem(
        problem_id=str(given_id) if is_usable else content_id(question, rationale),
        question=question,
        rationale=rationale,
        answer=answer,
        style=str(row.get("style") or ("gsm8k" if is_gsm8k_style else "math")),
        family=str(row.get("family") or ""),
        source_id=_source_id(row),
    )


def read_problems(path: Path) -> tuple[list[Problem], list[RejectedRow]]:
    """Every readable problem of a JSONL file, and the rows set aside, by line number.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    return problems_from_numbered(read_lines(path), source=str(path))


def problems_from_rows(
    rows: Iterable[object], *, source: str
) -> tuple[list[Problem], list[RejectedRow]]:
    """Problems and rejected rows from parsed rows, numbered from 1."""
    return problems_from_numbered(enumerate(rows, start=1), source=source)


def problems_from_numbered(
    rows: Iterable[tuple[int, object]], *, source: str
) -> tuple[list[Problem], list[RejectedRow]]:
    """Problems and rejected rows from numbered rows, where a row may be the error of its line."""
    problems: dict[str, Problem] = {}
    first_rows: dict[str, int] = {}
    rejected: list[RejectedRow] = []
    for number, row in rows:
        try:
            problem = _problem_from_value(row)
            first = first_rows.setdefault(problem.problem_id, number)
            if first != number:
                raise DataError(f"repeats row {first}")
        except DataError as error:
            rejected.append(RejectedRow(row_number=number, source=source, reason=str(error)))
            continue
        problems[problem.problem_id] = problem
    return list(problems.values()), rejected


def _problem_from_value(value: object) -> Problem:
    if isinstance(value, DataError):
        raise value
    if not isinstance(value, Mapping):
        raise DataError(f"not a JSON object but {type(value).__name__}")
    return problem_from_row(cast("Mapping[str, object]", value))


def _source_id(row: Mapping[str, object]) -> str:
    if isinstance(row.get("original_question"), str):
        return source_key(text_field(row, "original_question"))
    given = row.get("source_id")
    return given if isinstance(given, str) and len(given) <= MAX_ID_CHARS else ""


def text_field(row: Mapping[str, object], *names: str) -> str:
    """The first of the named fields that holds text; raises DataError when none does."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            if len(value) > MAX_TEXT_CHARS:
                raise DataError(
                    f"field {name!r} has {len(value)} characters, at most {MAX_TEXT_CHARS} are read"
                )
            return value.strip()
    raise DataError(f"field {' or '.join(repr(name) for name in names)} is missing or empty")


def _answer_field(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"field 'answer' is neither text nor a number but {type(value).__name__}")
    answer = str(value).strip()
    if len(answer) > MAX_TEXT_CHARS:
        raise DataError(f"field 'answer' has {len(answer)} characters")
    return answer


def _split_gsm8k_answer(text: str) -> tuple[str, str]:
    rationale, mark, answer = CALCULATOR_MARK.sub("", text).rpartition("####")
    if not mark:
        raise DataError("field 'answer' has no '#### N' line")
    return rationale.strip(), answer.strip()

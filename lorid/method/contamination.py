"""Decontamination: test questions of which a training row holds many words in a row.

    overlap = Overlap(questions, lengths=(13, 8))      # [(problem_id, text), ...]
    for problem in training: overlap.look_at(problem.problem_id, problem.question)
    told_overlap(overlap.details()), list(overlap.rows())

Thirteen words are what GPT-3's authors looked for (arXiv 2005.14165, appendix C); eight find more,
and also phrases that every such question has. Words are compared without case and punctuation. A
question shorter than that counts when a row holds all of it, unless it is below `MIN_WORDS`. Memory
grows with the test questions only: training rows pass by.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LENGTHS = (13, 8)
MIN_WORDS = 5
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A test question and the first training row that shares `num_words` words in a row with it."""

    problem_id: str
    row_id: str
    num_words: int
    words: str


@dataclass(kw_only=True)
class _Length:
    """What is looked for at one length: the runs of words, and what was found by question."""

    places: dict[int, dict[str, set[int]]] = field(default_factory=dict[int, dict[str, set[int]]])
    found: dict[int, Found] = field(default_factory=dict[int, Found])
    row_ids: set[str] = field(default_factory=set[str])


class Overlap:
    """Looks for runs of words of the test questions in training rows, one row after the other."""

    def __init__(
        self, questions: Iterable[tuple[str, str]], *, lengths: Sequence[int] = LENGTHS
    ) -> None:
        self.problem_ids: list[str] = []
        self.lengths = {length: _Length() for length in lengths}
        self.num_rows = 0
        for number, (problem_id, text) in enumerate(questions):
            self.problem_ids.append(problem_id)
            words = words_of(text)
            for length, one in self.lengths.items():
                size = min(length, len(words))
                if size >= min(MIN_WORDS, length):
                    runs = one.places.setdefault(size, {})
                    for run in _runs(words, size):
                        runs.setdefault(run, set()).add(number)

    def look_at(self, row_id: str, *texts: str) -> None:
        """Note which questions share a run of words with one of a training row's texts."""
        self.num_rows += 1
        for words in map(words_of, texts):
            for one in self.lengths.values():
                for size, runs in one.places.items():
                    for run in _runs(words, size):
                        if run in runs:
                            self._note(one, row_id, run=run, numbers=runs[run])

    def _note(self, one: _Length, row_id: str, *, run: str, numbers: set[int]) -> None:
        one.row_ids.add(row_id)
        for number in numbers - one.found.keys():
            one.found[number] = Found(
                problem_id=self.problem_ids[number],
                row_id=row_id,
                num_words=run.count(" ") + 1,
                words=run,
            )

    def num_found(self, length: int) -> int:
        """How many questions share so many words in a row with some row."""
        return len(self.lengths[length].found)

    def details(self) -> dict[str, int]:
        """The counts for a record."""
        counts = {f"questions_{n}_words": self.num_found(n) for n in self.lengths}
        rows = {f"rows_{n}_words": len(one.row_ids) for n, one in self.lengths.items()}
        return {
            "num_questions": len(self.problem_ids), "num_rows": self.num_rows, **counts, **rows
        }  # fmt: skip

    def rows(self) -> Iterator[dict[str, Any]]:
        """A line for each question that was found, once, the longest runs first."""
        longest: dict[int, Found] = {}
        for length in sorted(self.lengths, reverse=True):
            for number, found in self.lengths[length].found.items():
                longest.setdefault(number, found)
        for number in sorted(longest, key=lambda number: (-longest[number].num_words, number)):
            found = longest[number]
            yield {
                "problem_id": found.problem_id,
                "row_id": found.row_id,
                "num_words": found.num_words,
                "words": found.words,
            }


def told_overlap(details: Mapping[str, Any]) -> str:
    """The counts of a record in one line."""
    return (
        f"decontamination: of {details['num_questions']:,} questions "
        f"{details['questions_13_words']:,} share 13 words in a row with one of "
        f"{details['num_rows']:,} training rows, {details['questions_8_words']:,} share 8"
    )


def words_of(text: str) -> list[str]:
    """The words and numbers of a text, without case and punctuation."""
    return _WORD.findall(text.lower())


def _runs(words: Sequence[str], size: int) -> Iterator[str]:
    for start in range(len(words) - size + 1):
        yield " ".join(words[start : start + size])

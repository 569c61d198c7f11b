r"""Source questions: what a teacher is asked once, however many problems were made from it.

    groups = group_by_source(problems, sources=gold)      # one request each
    enriched = join(problems, knowledge={groups[0].source_id: ("rule", "rule")})

A problem's `source_id` is the key of the question that it was made from; without one it is its own
source. The key is a hash of the question with its white space made even, so that the same question
in two files is one. `augmented_problem` reads rows as MetaMathQA has them:

    {"type": "GSM_Rephrased", "query": "...", "original_question": "...",
     "response": "...\n#### 5\nThe answer is: 5"}
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import cast

from lorid.errors import DataError
from lorid.method.problems import EnrichedProblem, Problem, content_id, source_key, text_field

ANSWER_MARK = "The answer is:"
_GOLD_LINE = re.compile(r"\n####[^\n]*\Z")


@dataclass(frozen=True, kw_only=True)
class SourceGroup:
    """A source question with its gold rationale, and how many problems share its knowledge."""

    source_id: str
    source: Problem
    num_problems: int


def source_of(problem: Problem) -> str:
    """Key of the question that a problem was made from: its own, when it names none."""
    return problem.source_id or source_key(problem.question)


def sources_by_key(sources: Iterable[Problem]) -> dict[str, Problem]:
    """Source problems by the key of their question; of two with one question the first."""
    found: dict[str, Problem] = {}
    for source in sources:
        found.setdefault(source_key(source.question), source)
    return found


class SourceGroups(Collection[SourceGroup]):
    """The groups in the order of their first problems, each made when it is asked for."""

    def __init__(
        self,
        *,
        counts: Mapping[str, int],
        gold: Mapping[str, Problem],
        shown: Mapping[str, Problem],
    ) -> None:
        self._counts, self._gold, self._shown = counts, gold, shown

    def __getitem__(self, source_id: str) -> SourceGroup:
        return SourceGroup(
            source_id=source_id,
            source=self._gold.get(source_id) or self._shown[source_id],
            num_problems=self._counts[source_id],
        )

    def __contains__(self, group: object) -> bool:
        return isinstance(group, SourceGroup) and group in iter(self)

    def __iter__(self) -> Iterator[SourceGroup]:
        return map(self.__getitem__, self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def source_ids(self) -> Collection[str]:
        """The keys, in the same order."""
        return self._counts.keys()

    @property
    def num_problems(self) -> int:
        """Of all groups."""
        return sum(self._counts.values())


def group_by_source(
    problems: Iterable[Problem],
    *,
    sources: Iterable[Problem] = (),
    shown: MutableMapping[str, Problem] | None = None,
) -> SourceGroups:
    """One group per source question, in the order of their first problems.

    The teacher is shown the source of `sources`; without one there the problem that asks the source
    question itself, else the first problem of the group. `shown` is an empty mapping to keep these
    in, for more of them than memory should hold.
    """
    gold = sources_by_key(sources)
    shown = {} if shown is None else shown
    counts: dict[str, int] = {}
    waiting: set[str] = set()
    for problem in problems:
        key = source_of(problem)
        is_first = key not in counts
        counts[key] = counts.get(key, 0) + 1
        if key in gold:
            continue
        asks_it = source_key(problem.question) == key
        if is_first or (asks_it and key in waiting):
            shown[key] = problem
        if asks_it:
            waiting.discard(key)
        elif is_first:
            waiting.add(key)
    return SourceGroups(counts=counts, gold=gold, shown=shown)


def join(
    problems: Iterable[Problem], *, knowledge: Mapping[str, Sequence[str]]
) -> Iterator[EnrichedProblem]:
    """Every problem whose source has knowledge, with it; one pass, nothing is held."""
    for problem in problems:
        rules = knowledge.get(source_of(problem))
        if rules is not None:
            yield EnrichedProblem(problem=problem, knowledge=tuple(rules))


def augmented_problem(value: object) -> Problem:
    """The problem of a row of MetaMathQA, with the key of its source.

    Raises:
        DataError: the row lacks a field, or its response names no answer.
    """
    if isinstance(value, DataError):
        raise value
    if not isinstance(value, Mapping):
        raise DataError(f"not a JSON object but {type(value).__name__}")
    row = cast("Mapping[str, object]", value)
    kind = str(row.get("type") or "")
    question, response = text_field(row, "query"), text_field(row, "response")
    original = text_field(row, "original_question")
    body, mark, answer = response.rpartition(ANSWER_MARK)
    if not mark or not answer.strip():
        raise DataError(f"field 'response' does not end in '{ANSWER_MARK} ...'")
    is_gsm8k_style = kind.startswith("GSM")
    # Targets of the GSM8K style get their answer line from lorid; MATH keeps its own.
    rationale = _GOLD_LINE.sub("", body.rstrip()).rstrip() if is_gsm8k_style else response
    if not rationale:
        raise DataError("field 'response' holds an answer and no rationale")
    return Problem(
        problem_id=content_id(question, rationale),
        question=question,
        rationale=rationale,
        answer=answer.strip(),
        style="gsm8k" if is_gsm8k_style else "math",
        family=kind,
        source_id=source_key(original),
    )

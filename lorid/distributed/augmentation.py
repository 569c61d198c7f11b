"""Augmented rows matched with their source questions, in one pass over the rows.

    rows ---> matched    -> train.jsonl, and its source question -> sources.jsonl
          |-> unmatched  -> unmatched.jsonl: no training problem asks their `original_question`
          `-> rejected   -> returned: no row of this form, or a repeat

What is held in memory is the source questions and a key per row, not the rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorid.errors import DataError
from lorid.jsonl import json_line, write_jsonl
from lorid.method.problems import Problem, RejectedRow, source_key
from lorid.method.sources import augmented_problem, sources_by_key


@dataclass(kw_only=True)
class Matching:
    """Counts of one pass; `sources` holds the keys of the source questions that are needed."""

    num_train: int = 0
    num_dropped_as_test: int = 0
    sources: set[str] = field(default_factory=set[str])
    unmatched_by_type: Counter[str] = field(default_factory=Counter[str])
    rejected: list[RejectedRow] = field(default_factory=list[RejectedRow])

    def details(self) -> dict[str, Any]:
        """The report, for the record."""
        return {
            "num_train": self.num_train,
            "num_sources": len(self.sources),
            "num_requests_saved": self.num_train - len(self.sources),
            "num_unmatched": self.unmatched_by_type.total(),
            "unmatched_by_type": dict(sorted(self.unmatched_by_type.items())),
        }


def match_rows(
    rows: Iterable[tuple[int, object]],
    *,
    source: str,
    sources: Sequence[Problem],
    tested: frozenset[str],
    folder: Path,
    limit: int | None,
) -> Matching:
    """Write the matched and the unmatched rows; `source` names the rows' file in rejects.

    At most `limit` rows are matched. A row is dropped when its own question or its source is asked
    in the test split.
    """
    known, seen, found = sources_by_key(sources), set[str](), Matching()
    with (
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "unmatched.jsonl").open("w", encoding="utf-8") as unmatched,
    ):
        for number, row in rows:
            if found.num_train == limit:
                break
            try:
                problem = augmented_problem(row)
                if problem.problem_id in seen:
                    raise DataError("repeats an earlier row")
            except DataError as error:
                refused = RejectedRow(row_number=number, source=source, reason=str(error))
                found.rejected.append(refused)
                continue
            seen.add(problem.problem_id)
            if problem.source_id not in known:
                found.unmatched_by_type[problem.family or "no type"] += 1
                unmatched.write(json_line(row))
            elif {problem.source_id, source_key(problem.question)} & tested:
                found.num_dropped_as_test += 1
            else:
                found.num_train += 1
                found.sources.add(problem.source_id)
                train.write(json_line(problem.to_row()))
    needed = (one.to_row() for key, one in known.items() if key in found.sources)
    write_jsonl(folder / "sources.jsonl", needed)
    return found

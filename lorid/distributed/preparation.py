"""The prepare stage: problems of both splits, from wherever the config says."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorid.config import DataConfig, RunConfig
from lorid.demo.generator import generate
from lorid.distributed.augmentation import match_rows
from lorid.distributed.inputs import ROW_FILES, hub_parts, is_row_file
from lorid.errors import DataError, one_line
from lorid.jsonl import read_array, read_jsonl, read_lines, write_jsonl
from lorid.method.problems import (
    Problem,
    RejectedRow,
    problems_from_numbered,
    problems_from_rows,
    read_problems,
    source_key,
)
from lorid.method.sources import SourceGroups, group_by_source, source_of
from lorid.serving import EvaluationConfig
from lorid.spool import Spool

MAX_SHOWN_REASONS = 3


@dataclass(frozen=True, kw_only=True)
class Split:
    """Problems of a split and the rows that were set aside."""

    problems: list[Problem]
    rejected: list[RejectedRow]


def load_split(config: RunConfig, split: str) -> Split:
    """A split's problems, at most as many as the config says, in their own order.

    Raises:
        DataError: the source cannot be read, or holds no usable problem.
    """
    data = config.data
    limit = data.num_train if split == "train" else data.num_test
    if split == "train" and data.augmented is not None:
        limit = None  # the limit is one of rows; each may have another source
    if data.source == "demo":
        enriched = generate(split=split, count=limit or 1000, seed=config.seed)
        loaded = Split(problems=[item.problem for item in enriched], rejected=[])
    elif data.source == "jsonl":
        problems, rejected = read_problems(Path(str(data.train if split == "train" else data.test)))
        loaded = Split(problems=problems, rejected=rejected)
    else:
        problems, rejected = problems_from_rows(_hub_rows(data, split), source=data.hub_id)
        loaded = Split(problems=problems, rejected=rejected)
    if not loaded.problems:
        raise DataError(
            f"the {split} split has no usable problem; "
            + ("; ".join(_reasons(loaded.rejected)) or "it is empty")
        )
    return Split(problems=loaded.problems[:limit], rejected=loaded.rejected)


def load_questions(config: EvaluationConfig) -> Split:
    """The questions that an evaluation names for itself: a file's, or a split's of the hub.

    Raises:
        DataError: the source cannot be read, or holds no usable problem.
    """
    place = str(config.questions)
    if is_row_file(place):
        rows = read_array(Path(place)) if place.endswith(".json") else read_lines(Path(place))
        problems, rejected = problems_from_numbered(rows, source=place)
    else:
        name, config_name, split = hub_parts(place)
        loaded = _loaded(name, config_name, split, field="evaluation.questions")
        problems, rejected = problems_from_rows(loaded, source=name)
    if not problems:
        reason = "; ".join(_reasons(rejected)) or "it is empty"
        raise DataError(f"evaluation.questions: {place} has no usable problem; {reason}")
    return Split(problems=problems[: config.num_questions], rejected=rejected)


def write_splits(config: RunConfig, folder: Path) -> Mapping[str, Any]:
    """Write `train.jsonl`, `test.jsonl` and `rejected.jsonl`; returns the counts.

    With augmented rows also `sources.jsonl` (what the teacher is asked) and `unmatched.jsonl` (rows
    whose source question is not among the training problems). Questions that also occur in the
    test split, and what was made from them, are dropped from training.

    Raises:
        DataError: a source cannot be read, or nothing is left to train on.
    """
    loaded, test = load_split(config, "train"), load_split(config, "test")
    tested = frozenset(source_key(problem.question) for problem in test.problems)
    rejected = [*loaded.rejected, *test.rejected]
    if config.data.augmented is None:
        train = [
            one
            for one in loaded.problems
            if not {source_of(one), source_key(one.question)} & tested
        ]
        write_jsonl(folder / "train.jsonl", (problem.to_row() for problem in train))
        num_dropped, num_sources = (
            len(loaded.problems) - len(train),
            len(set(map(source_of, train))),
        )
        counts: dict[str, Any] = {"num_train": len(train), "num_sources": num_sources}
    else:
        found = match_rows(
            _augmented_rows(config.data.augmented),
            source=config.data.augmented,
            sources=loaded.problems,
            tested=tested,
            folder=folder,
            limit=config.data.num_train,
        )
        num_dropped, counts = found.num_dropped_as_test, found.details()
        rejected += found.rejected
    if not counts["num_train"]:
        raise DataError(_nothing_left(config.data, counts))
    write_jsonl(folder / "test.jsonl", (problem.to_row() for problem in test.problems))
    write_jsonl(folder / "rejected.jsonl", map(asdict, rejected))
    return {
        **counts,
        "num_test": len(test.problems),
        "num_rejected": len(rejected),
        "first_rejected": "; ".join(_reasons(rejected)),
        "num_train_dropped_as_test": num_dropped,
    }


def _nothing_left(data: DataConfig, counts: Mapping[str, Any]) -> str:
    if data.augmented is not None:
        return (
            f"of the rows of {data.augmented} {counts['num_unmatched']} have no source question "
            "among the training problems and none is left; give the data set that they were made "
            "from"
        )
    return (
        "every training question is also a test question; give other files, or a test split "
        "of its own"
    )


def _reasons(rejected: Sequence[RejectedRow]) -> list[str]:
    shown = rejected[:MAX_SHOWN_REASONS]
    return [f"{Path(row.source).name} row {row.row_number}: {row.reason}" for row in shown]


def read_split(folder: Path, split: str) -> list[Problem]:
    """A split that `write_splits` wrote."""
    return list(iter_split(folder, split))


def iter_split(folder: Path, split: str) -> Iterator[Problem]:
    """The problems of a split one by one: augmented data sets need not be held."""
    return (Problem.from_row(row) for _, row in read_jsonl(folder / f"{split}.jsonl"))


def read_groups(folder: Path) -> SourceGroups:
    """What the teacher is asked: the training split by source question.

    In memory is a key for each source; the problems lie in a temporary file.
    """
    is_augmented = (folder / "sources.jsonl").is_file()
    sources = iter_split(folder, "sources") if is_augmented else ()
    shown = Spool[Problem](dump=_dumped, load=_loaded_problem)
    return group_by_source(iter_split(folder, "train"), sources=sources, shown=shown)


def _dumped(problem: Problem) -> bytes:
    return json.dumps(problem.to_row()).encode()


def _loaded_problem(row: bytes) -> Problem:
    return Problem.from_row(json.loads(row))


def _augmented_rows(place: str) -> Iterable[tuple[int, object]]:
    path = Path(place)
    if path.suffix in ROW_FILES:
        return read_array(path) if path.suffix == ".json" else read_lines(path)
    return enumerate(_loaded(place, None, "train", field="data.augmented"), start=1)


def _hub_rows(data: DataConfig, split: str) -> Iterable[object]:
    return _loaded(data.hub_id, data.hub_config, split, field="data.hub_id")


def _loaded(name: str, config_name: str | None, split: str, *, field: str) -> Iterable[object]:
    import datasets

    try:
        return datasets.load_dataset(name, config_name, split=split)
    except Exception as error:
        cause = one_line(error, max_chars=160)
        raise DataError(
            f"cannot load {name} ({split}) from the hub: {cause}; "
            f"check {field} and the network, or give files"
        ) from error

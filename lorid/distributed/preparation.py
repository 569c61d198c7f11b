"""The prepare stage: problems of both splits, from wherever the config says."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorid.config import DataConfig, RunConfig
from lorid.demo.generator import generate
from lorid.errors import DataError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.problems import (
    Problem,
    RejectedRow,
    problems_from_rows,
    read_problems,
)

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


def write_splits(config: RunConfig, folder: Path) -> Mapping[str, Any]:
    """Write `train.jsonl`, `test.jsonl` and `rejected.jsonl`; returns the counts.

    Test questions that also occur in the training split are dropped from training.

    Raises:
        DataError: a source cannot be read, or nothing is left to train on.
    """
    train, test = load_split(config, "train"), load_split(config, "test")
    test_questions = {problem.question for problem in test.problems}
    kept = [problem for problem in train.problems if problem.question not in test_questions]
    if not kept:
        raise DataError(
            "every training question is also a test question; give other files, or a test split "
            "of its own"
        )
    rejected = [asdict(row) for row in (*train.rejected, *test.rejected)]
    write_jsonl(folder / "train.jsonl", (problem.to_row() for problem in kept))
    write_jsonl(folder / "test.jsonl", (problem.to_row() for problem in test.problems))
    write_jsonl(folder / "rejected.jsonl", rejected)
    return {
        "num_train": len(kept),
        "num_test": len(test.problems),
        "num_rejected": len(rejected),
        "first_rejected": "; ".join(_reasons((*train.rejected, *test.rejected))),
        "num_train_dropped_as_test": len(train.problems) - len(kept),
    }


def _reasons(rejected: Sequence[RejectedRow]) -> list[str]:
    shown = rejected[:MAX_SHOWN_REASONS]
    return [f"{Path(row.source).name} row {row.row_number}: {row.reason}" for row in shown]


def read_split(folder: Path, split: str) -> list[Problem]:
    """A split that `write_splits` wrote."""
    return [Problem.from_row(row) for _, row in read_jsonl(folder / f"{split}.jsonl")]


def _hub_rows(data: DataConfig, split: str) -> Iterable[object]:
    import datasets

    try:
        return datasets.load_dataset(data.hub_id, data.hub_config, split=split)
    except Exception as error:
        cause = " ".join(str(error).split())[:160]
        raise DataError(
            f"cannot load {data.hub_id} ({split}) from the hub: {cause}; "
            "check data.hub_id and the network, or use data.source=jsonl"
        ) from error

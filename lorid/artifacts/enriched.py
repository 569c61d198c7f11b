"""Problems with their knowledge as Parquet: what the knowledge stage makes and training reads.

    write_enriched(folder, problems)           # data/train-00000.parquet, ...
    for problem in read_enriched(folder): ...

Both go in row groups, so that memory does not grow with the number of rows. The layout is the one
that `datasets.load_dataset(folder)` knows; `lorid.artifacts.knowledge_card` describes it there.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorid.errors import DataError
from lorid.method.problems import EnrichedProblem

PATTERN = "data/train-*.parquet"
ROWS_PER_GROUP = 2_000
ROWS_PER_FILE = 100_000
_TEXTS = ("problem_id", "question", "rationale", "answer", "style", "family", "source_id")
SCHEMA = pa.schema(
    [*((name, pa.string()) for name in _TEXTS), ("knowledge", pa.list_(pa.string()))]
)


def write_enriched(
    folder: Path, problems: Iterable[EnrichedProblem], *, rows_per_file: int = ROWS_PER_FILE
) -> int:
    """Write the problems in their order; returns how many there were."""
    (folder / "data").mkdir(parents=True)
    rows = iter(problems)
    num_rows = num_files = 0
    while not num_files or num_rows == num_files * rows_per_file:
        file = folder / "data" / f"train-{num_files:05d}.parquet"
        written = _write_file(file, islice(rows, rows_per_file))
        if not written and num_files:
            file.unlink()
            break
        num_rows, num_files = num_rows + written, num_files + 1
    return num_rows


def _write_file(file: Path, rows: Iterator[EnrichedProblem]) -> int:
    num_rows = 0
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        while group := [problem.to_row() for problem in islice(rows, ROWS_PER_GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
            num_rows += len(group)
    return num_rows


def read_enriched(folder: Path) -> Iterator[EnrichedProblem]:
    """The problems in the order in which they were written.

    Raises:
        DataError: the folder holds none, or a file is no Parquet file of them.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise DataError(f"{folder} holds no {PATTERN}; run the knowledge stage again")
    for file in files:
        try:
            with pq.ParquetFile(file) as parquet:
                for batch in parquet.iter_batches(batch_size=ROWS_PER_GROUP):
                    yield from map(EnrichedProblem.from_row, batch.to_pylist())
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise DataError(
                f"cannot read {file}: {error}; run the knowledge stage again"
            ) from error

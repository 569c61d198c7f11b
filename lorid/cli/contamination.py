"""`lorid contamination`: test questions that share words in a row with training rows."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from lorid.cli.app import AsJson, app
from lorid.errors import DataError
from lorid.jsonl import read_array, read_lines, write_jsonl

# Of GSM8K, MATH, LoRID and MetaMathQA rows.
QUESTION_FIELDS = ("question", "problem", "query")
TEXT_FIELDS = (*QUESTION_FIELDS, "answer", "rationale", "solution", "response", "original_question")
NUM_SHOWN = 10


@app.command()
def contamination(
    test: Annotated[Path, typer.Argument(help="file with the test questions (.jsonl or .json)")],
    train: Annotated[list[Path], typer.Argument(help="files with training rows")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="write a line a question here")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List test questions of which a training row holds 13, or 8, words in a row.

    Example: lorid contamination test.jsonl train.jsonl -o shared.jsonl
    """
    from lorid.method.contamination import Overlap, told_overlap

    questions = [(name, question) for name, question, _ in _rows(test)]
    if not questions:
        raise DataError(f"{test} holds no questions; give rows with a field 'question'")
    overlap = Overlap(questions)
    for file in train:
        for name, _, texts in _rows(file):
            overlap.look_at(name, *texts)
    rows = list(overlap.rows())
    if output is not None:
        write_jsonl(output, rows)
    if as_json:
        typer.echo(json.dumps({**overlap.details(), "questions": rows}))
        return
    typer.echo(told_overlap(overlap.details()))
    for row in rows[:NUM_SHOWN]:
        typer.echo(f"  {row['problem_id']} and {row['row_id']}: {row['words']!r}")
    if len(rows) > NUM_SHOWN:
        typer.echo(f"  {len(rows) - NUM_SHOWN} more; -o FILE or --json gives all")


def _rows(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Id, question and texts of each row; a row without an id is named by file and line."""
    for number, value in read_array(path) if path.suffix == ".json" else read_lines(path):
        if isinstance(value, DataError):
            raise DataError(f"{path}, line {number}: {value}")
        if not isinstance(value, Mapping):
            raise DataError(f"{path}, line {number}: not a JSON object")
        row = cast("Mapping[str, Any]", value)
        texts = [row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)]
        question = next((row[n] for n in QUESTION_FIELDS if isinstance(row.get(n), str)), None)
        if question is None:
            raise DataError(f"{path}, line {number}: none of {', '.join(QUESTION_FIELDS)} is there")
        yield str(row.get("problem_id") or f"{path.name}:{number}"), question, texts

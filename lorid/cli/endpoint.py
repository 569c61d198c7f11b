"""`lorid solve` and `lorid grade`: clients of the endpoint."""

import json
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lorid.cli.app import AsJson, app
from lorid.errors import DataError
from lorid.jsonl import read_jsonl

DEFAULT_URL = "http://127.0.0.1:8000"
GRADE_BATCH = 32
Url = Annotated[str, typer.Option(help="the endpoint")]


@app.command()
def solve(
    question: Annotated[str, typer.Argument(help="the question")],
    url: Url = DEFAULT_URL,
    max_rounds: Annotated[int | None, typer.Option(min=1, max=100)] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the endpoint one question; the token is read from LORID_API_KEY.

    Example: lorid solve "Tom has 12 apples. He gives 5 away. How many are left?"
    """
    from lorid.client import Client

    with Client(url, os.environ.get("LORID_API_KEY")) as client:
        answer = client.solve(question, max_rounds=max_rounds, seed=seed)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    for number, one in enumerate(answer["rounds"], start=1):
        typer.echo(f"round {number}")
        for side in ("intuitive", "knowledge", "deep"):
            text = one[side]["rationale"] if isinstance(one[side], dict) else one[side]
            if text is not None:
                typer.echo(f"  {side:<10} " + text.replace("\n", "\n" + " " * 13))
    typer.echo(f"\n{answer['answer']}  ({answer['outcome']}, {answer['num_rounds']} rounds)")


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSONL: id, question, reference and/or submission")],
    output: Annotated[Path, typer.Option("-o", "--output", help="JSONL of results")],
    url: Url = DEFAULT_URL,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
) -> None:
    """Grade a file through the endpoint; run it again to resume from the output file.

    Example: lorid grade test.jsonl -o graded.jsonl
    """
    from rich.progress import Progress

    from lorid.client import Client

    done = {row["id"] for _, row in read_jsonl(output)} if output.exists() else set()
    items = [row for row in _items(file) if row["id"] not in done]
    if done:
        typer.echo(f"{len(done)} are graded already, {len(items)} to go", err=True)
    with (
        Client(url, os.environ.get("LORID_API_KEY")) as client,
        output.open("a", encoding="utf-8") as results,
        Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task("grading", total=len(items))
        queue = iter(items)
        while batch := list(islice(queue, GRADE_BATCH)):
            answer = client.grade(batch, seed=seed)
            results.writelines(json.dumps(row) + "\n" for row in answer["results"])
            results.flush()
            progress.advance(task, len(batch))
    rows = [row for _, row in read_jsonl(output)]
    verdicts = [row.get("verdict") for row in rows]
    typer.echo(
        f"{len(rows)} graded: {verdicts.count('correct')} correct, "
        f"{verdicts.count('incorrect')} incorrect, {verdicts.count('undecided')} undecided, "
        f"{verdicts.count(None)} errors -> {output}"
    )


def _items(path: Path) -> list[dict[str, Any]]:
    items = []
    for number, row in read_jsonl(path):
        item = {
            key: row[key] for key in ("id", "question", "reference", "submission") if key in row
        }
        item["id"] = str(item.get("id", number))
        items.append(item)
    if not items:
        raise DataError(f"{path} holds no items")
    return items

"""`lorid solve` and `lorid grade`: clients of the endpoint."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from lorid.cli import completion
from lorid.cli.app import AsJson, app
from lorid.errors import DataError
from lorid.jsonl import healed, json_line, read_jsonl

DEFAULT_URL = "http://127.0.0.1:8000"
ITEM_FIELDS = ("id", "question", "reference", "submission")
Url = Annotated[str, typer.Option(help="the endpoint")]
MaxRounds = Annotated[
    int | None, typer.Option(min=1, max=100, help="bound on the rounds, else the endpoint's")
]
Rule = Annotated[
    str | None,
    typer.Option(
        help="when a question is done (paper, bayes, majority, ...), else the endpoint's",
        autocompletion=completion.live_rules,
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="what is sampled, else the endpoint's")]


@app.command()
def solve(
    question: Annotated[str, typer.Argument(help="the question")],
    url: Url = DEFAULT_URL,
    max_rounds: MaxRounds = None,
    rule: Rule = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Ask the endpoint one question; show its rounds as they come.

    The token is read from LORID_API_KEY.

    Example: lorid solve "What is 3 boxes of 4 pens?" --max-rounds 5
    """
    from lorid.client import Client

    with Client(url, os.environ.get("LORID_API_KEY")) as client:
        if as_json:
            answer = client.solve(question, max_rounds=max_rounds, rule=rule, seed=seed)
            typer.echo(json.dumps(answer))
            return
        events = client.solve_stream(question, max_rounds=max_rounds, rule=rule, seed=seed)
        for name, event in events:
            if name == "round":
                _show_round(event["round"], event["body"])
            elif name == "answer":
                rounds = f"{event['num_rounds']} rounds"
                typer.echo(f"\n{event['answer']}  ({event['outcome']}, {rounds})")


def _show_round(number: int, one: dict[str, Any]) -> None:
    typer.echo(f"round {number}")
    for side in ("intuitive", "knowledge", "deep"):
        text = one[side]["rationale"] if isinstance(one[side], dict) else one[side]
        if text is not None:
            typer.echo(f"  {side:<10} " + text.replace("\n", "\n" + " " * 13))


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSONL: id, question, reference and/or submission")],
    output: Annotated[Path, typer.Option("-o", "--output", help="JSONL of results")],
    url: Url = DEFAULT_URL,
    max_rounds: MaxRounds = None,
    rule: Rule = None,
    seed: Seed = None,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="also where a submission departs, and a hint")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Grade a file of any size through the endpoint.

    Run it again to resume from the output. Results stand in the order in which they finish.
    Refusals, restarts and lost connections are waited out. Exit code 0: all graded; 1: some
    items are errors; 2: the file or the endpoint.

    Example: lorid grade test.jsonl -o graded.jsonl
    """
    from lorid.batches import grade_all
    from lorid.client import Client
    from lorid.distributed.progress import Progress

    num_items = sum(1 for _ in _items(file))
    if not num_items:
        raise DataError(f"{file} holds no items")
    verdicts, done = _graded_before(output)
    if done:
        typer.echo(f"{len(done)} are graded already, {num_items - len(done)} to go", err=True)
    open_items = (item for item in _items(file) if item["id"] not in done)
    with (
        Client(url, os.environ.get("LORID_API_KEY")) as client,
        output.open("a", encoding="utf-8") as results,
        Progress("grade") as progress,
    ):
        rows = grade_all(
            client,
            open_items,
            seed=seed,
            max_rounds=max_rounds,
            rule=rule,
            include_feedback=feedback,
        )
        for row in rows:
            results.write(json_line(row))
            results.flush()
            verdicts[row["verdict"]] += 1
            progress.update("items", done=verdicts.total(), total=num_items)
    typer.echo(_tally(verdicts, output=output, as_json=as_json))
    if verdicts[None]:
        raise typer.Exit(1)


def _tally(verdicts: Counter[str | None], *, output: Path, as_json: bool) -> str:
    """The last line: how many of each verdict, and where they are."""
    counts = {name: verdicts[name] for name in ("correct", "incorrect", "undecided")}
    counts["errors"] = verdicts[None]
    if as_json:
        summary = {f"num_{name}": count for name, count in counts.items()}
        return json.dumps({"num_items": verdicts.total(), **summary, "output": str(output)})
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{verdicts.total()} graded: {told} -> {output}"


def _graded_before(output: Path) -> tuple[Counter[str | None], set[str]]:
    """The verdicts in an output file, and their ids; a last line that was cut off is dropped."""
    verdicts: Counter[str | None] = Counter()
    done: set[str] = set()
    if output.exists() and healed(output):
        typer.echo(f"the last line of {output} was cut off; its item is graded again", err=True)
    if output.exists():
        for _, row in read_jsonl(output):
            done.add(str(row.get("id")))
            verdicts[row.get("verdict")] += 1
    return verdicts, done


def _items(path: Path) -> Iterator[dict[str, Any]]:
    """The items of a file, one in memory at a time.

    Raises:
        DataError: the file cannot be read, or two items have one id.
    """
    seen: set[str] = set()
    for number, row in read_jsonl(path):
        item = {key: row[key] for key in ITEM_FIELDS if key in row}
        item["id"] = str(item.get("id", number))
        if item["id"] in seen:
            raise DataError(f"{path}, line {number}: id {item['id']!r} is there already")
        seen.add(item["id"])
        yield item

"""`lorid evaluate`: triples of a store on questions of your choice, compared on the same ones."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorid.cli.app import DEFAULT_STORE, AsJson, Overrides, Store, app

if TYPE_CHECKING:
    from lorid.artifacts.records import Record

SECTION = "evaluation."
SHOWN = ("num_problems", "accuracy", "coverage", "mean_rounds", "num_errors", "num_short")


@app.command()
def evaluate(
    triples: Annotated[
        list[str], typer.Argument(help="NAME (the newest), NAME/VERSION or @ALIAS; one or more")
    ],
    questions: Annotated[
        str | None,
        typer.Option(help="rows (.jsonl, .json) or ID:CONFIG:SPLIT; else the triple's test split"),
    ] = None,
    num: Annotated[int | None, typer.Option(min=1, help="only the first so many")] = None,
    store: Store = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate triples on the same questions; each but the first is compared with the first.

    Every text is logged in the store as it comes: run again after a stop, and only the rest is
    asked. --set changes the endpoint (engine.num_gpus=1) or the evaluation (evaluation.mode=...).

    Example: lorid evaluate mistral llama --questions gsm8k_test.jsonl --store s3://bucket/lorid
    """
    from rich.console import Console

    from lorid.artifacts.store import open_store
    from lorid.distributed.triple_evaluation import evaluate_triple
    from lorid.interrupts import interrupt_on_sigterm

    interrupt_on_sigterm()
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    changes = overrides or []
    settings = [one.removeprefix(SECTION) for one in changes if one.startswith(SECTION)]
    settings += [f"questions={json.dumps(questions)}"] if questions else []
    settings += [f"num_questions={num}"] if num else []
    records: list[Record] = []
    for reference in triples:
        console.print(f"[{reference}]")
        first = [f"compare=[{records[0].address}]"] if records else []
        records.append(
            evaluate_triple(
                open_store(store),
                reference,
                overrides=[one for one in changes if not one.startswith(SECTION)],
                settings=[*settings, *first],
                announce=console.print,
            )
        )
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records]))
        return
    for record in records:
        shown = ", ".join(f"{name} {_shown(record.details.get(name))}" for name in SHOWN)
        typer.echo(f"{record.address}  {shown}")


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)

"""`lorid runs` and `lorid report`: what is in a store, and how to get it out."""

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lorid.cli.app import DEFAULT_STORE, AsJson, Store, app
from lorid.errors import DataError

ADDRESS_WIDTH = 36
runs_app = typer.Typer(help="Records of runs in a store.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")


@runs_app.command("list")
def runs_list(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List the artifacts in a store.

    Example: lorid runs list --store s3://bucket/lorid
    """
    from lorid.artifacts.records import list_records
    from lorid.artifacts.store import open_store

    records = list_records(open_store(store))
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records]))
        return
    if not records:
        typer.echo(f"{store} holds no artifacts", err=True)
        return
    table = Table(box=None, pad_edge=False)
    # Addresses are for copying: they stay whole however narrow the terminal is.
    table.add_column("artifact", no_wrap=True, overflow="ignore", min_width=ADDRESS_WIDTH)
    table.add_column("made", no_wrap=True)
    table.add_column("seconds", no_wrap=True)
    table.add_column("details")
    for record in records:
        details = ", ".join(f"{k}={v}" for k, v in record.details.items() if not _is_nested(v))
        table.add_row(record.address, record.created_at[:16], f"{record.seconds:.0f}", details)
    Console().print(table)


@runs_app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(help="name of the run")],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Draw a run's artifacts as a tree, from its data over the triple to its grade and report.

    Example: lorid runs show demo --store lorid-demo/store
    """
    from lorid.artifacts.lineage import draw_lineage, records_of
    from lorid.artifacts.store import open_store

    records = records_of(open_store(store), run)
    if not records:
        raise DataError(f"{store} holds no run {run!r}; `lorid runs list --store ...` lists all")
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records]))
        return
    for line in draw_lineage(records):
        typer.echo(line)


@runs_app.command("unlock")
def runs_unlock(
    run: Annotated[str, typer.Argument(help="name of the run")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Take a run's name from the driver that holds it; that driver stops within a minute.

    Example: lorid runs unlock my-run --store s3://bucket/lorid
    """
    from lorid.artifacts.leases import unlock
    from lorid.artifacts.store import open_store

    typer.echo(unlock(open_store(store), run))


@runs_app.command("fetch")
def runs_fetch(
    address: Annotated[str, typer.Argument(help="KIND/NAME/VERSION, as `runs list` prints it")],
    store: Store = DEFAULT_STORE,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to put it into")] = Path(
        "."
    ),
) -> None:
    """Copy an artifact's files out of a store, verified: adapters in PEFT's format, rows, reports.

    Example: lorid runs fetch adapter/demo-deep_reasoner/0123456789ab -o my-adapter
    """
    from lorid.artifacts.records import fetch, load_record
    from lorid.artifacts.store import open_store

    opened = open_store(store)
    record = load_record(opened, address)
    fetch(opened, record, into=output)
    for entry in record.files:
        typer.echo(str(output / entry.path))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="name of the run")],
    store: Store = DEFAULT_STORE,
    output: Annotated[Path, typer.Option("-o", "--output", help="where to put it")] = Path(
        "report.html"
    ),
) -> None:
    """Fetch a run's newest HTML report from its store.

    Example: lorid report demo --store lorid-demo/store -o report.html
    """
    import tempfile

    from lorid.artifacts.records import fetch, list_records
    from lorid.artifacts.store import open_store

    opened = open_store(store)
    records = list_records(opened, kind="report", name=run)
    if not records:
        raise DataError(f"{store} holds no report of {run!r}; run jobs/distill.py first")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(fetch(opened, records[-1], into=Path(folder)) / "report.html", output)
    typer.echo(str(output))


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)

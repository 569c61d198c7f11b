"""`lorid runs` and `lorid report`: what is in a store, and how to get it out."""

import json
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorid.cli import completion
from lorid.cli.app import DEFAULT_STORE, AsJson, Store, app, say_next
from lorid.errors import DataError
from lorid.jsonl import read_lines

if TYPE_CHECKING:
    from lorid.artifacts.records import Kind
    from lorid.artifacts.store import ArtifactStore

ADDRESS_WIDTH = 48
KindName = Literal["data", "knowledge", "adapter", "triple", "merged", "evaluation", "report"]
runs_app = typer.Typer(
    help="Records of runs in a store.\n\nExample: lorid runs show demo", no_args_is_help=True
)
RunName = Annotated[str, typer.Argument(help="name of the run", autocompletion=completion.runs)]
app.add_typer(runs_app, name="runs")


@runs_app.command("list")
def runs_list(
    store: Store = DEFAULT_STORE,
    kind: Annotated[KindName | None, typer.Option(help="only of this kind, such as triple")] = None,
    name: Annotated[str | None, typer.Option(help="only of this name")] = None,
    as_json: AsJson = False,
) -> None:
    """List the artifacts in a store, oldest first. A large one is quicker by kind and name.

    Example: lorid runs list --store s3://bucket/lorid --kind triple --name gsm8k
    """
    from lorid.artifacts.store import open_store

    found = _oldest_first(open_store(store), kind=kind, name=name)
    if as_json:
        # One by one: a store may hold more records than memory.
        separator = "["
        for text in found:
            typer.echo(f"{separator}{text}", nl=False)
            separator = ","
        typer.echo("[]" if separator == "[" else "]")
        return
    first = next(found, None)
    if first is None:
        if kind or name:
            typer.echo(f"{store} holds no such artifacts", err=True)
            return
        typer.echo(f"{store} holds no artifacts", err=True)
        say_next("lorid demo, python jobs/distill.py --config run.yaml, or another --store")
        return
    # No table: it would wait for the last row to know its widths. Addresses are for copying.
    typer.echo(f"{'artifact':<{ADDRESS_WIDTH}}  {'made':<16}  {'seconds':>7}  details")
    for text in chain([first], found):
        record = json.loads(text)
        details = ", ".join(f"{k}={v}" for k, v in record["details"].items() if not _is_nested(v))
        address = f"{record['kind']}/{record['name']}/{record['version']}"
        made, seconds = record["created_at"][:16], f"{record['seconds']:.0f}"
        typer.echo(f"{address:<{ADDRESS_WIDTH}}  {made}  {seconds:>7}  {details}")


def _oldest_first(
    store: "ArtifactStore", *, kind: "Kind | None", name: str | None
) -> "Iterator[str]":
    """Each record as JSON; what waits for its turn lies in a temporary file."""
    from lorid.artifacts.records import by_age, iter_records
    from lorid.spool import Spool

    spool, ages = Spool[str](dump=str.encode, load=bytes.decode), list[tuple[str, str]]()
    for record in iter_records(store, kind=kind, name=name):
        ages.append(by_age(record))
        spool[record.address] = record.model_dump_json()
    return (spool[address] for _, address in sorted(ages))


@runs_app.command("show")
def runs_show(
    run: RunName,
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Draw a run's artifacts as a tree, from its data to its report.

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
    run: RunName,
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Take a run's name from the driver that holds it.

    That driver stops within a minute.

    Example: lorid runs unlock my-run --store s3://bucket/lorid
    """
    from lorid.artifacts.leases import unlock
    from lorid.artifacts.store import open_store

    told = unlock(open_store(store), run)
    typer.echo(json.dumps({"run": run, "told": told}) if as_json else told)


@runs_app.command("fetch")
def runs_fetch(
    address: Annotated[
        str,
        typer.Argument(
            help="KIND/NAME (the newest) or KIND/NAME/VERSION, as `runs list` prints it",
            autocompletion=completion.addresses,
        ),
    ],
    store: Store = DEFAULT_STORE,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to put it into")] = Path(
        "."
    ),
    as_json: AsJson = False,
) -> None:
    """Copy an artifact's files out of a store, verified.

    Adapters are in PEFT's format, knowledge in Parquet, attempts in JSONL.

    Example: lorid runs fetch evaluation/demo --store lorid-demo/store -o evaluation
    """
    from lorid.artifacts.addresses import named_record
    from lorid.artifacts.records import fetch
    from lorid.artifacts.store import open_store

    opened = open_store(store)
    record = named_record(opened, address)
    fetch(opened, record, into=output)
    paths = [str(output / entry.path) for entry in record.files]
    if as_json:
        typer.echo(json.dumps({"artifact": record.address, "files": paths}))
        return
    for path in paths:
        typer.echo(path)


@app.command()
def report(
    run: Annotated[
        str,
        typer.Argument(
            help="name of the run, or an attempts file (.jsonl)", autocompletion=completion.runs
        ),
    ],
    store: Store = DEFAULT_STORE,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="folder to put it into, or the .html file to write"),
    ] = Path("report.html"),
    rule: Annotated[
        str,
        typer.Option(
            help="for an attempts file: the rule to judge by", autocompletion=completion.rules
        ),
    ] = "paper",
    max_rounds: Annotated[
        int, typer.Option(min=1, help="for an attempts file: bound on the rounds")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Fetch a run's HTML report, or make one of an attempts file.

    Beside the page come its plots as SVG and the numbers behind them as CSV.

    Example: lorid report demo --store lorid-demo/store -o report

    Example: lorid report attempts.jsonl --rule bayes -o report
    """
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if run.endswith(".jsonl"):
            _make_report(Path(run), folder, rule=rule, max_rounds=max_rounds)
        else:
            _fetch_report(run, folder, store=store)
        page = str(_put_report(folder, output))
    typer.echo(json.dumps({"page": page}) if as_json else page)


def _make_report(file: Path, folder: Path, *, rule: str, max_rounds: int) -> None:
    from lorid.method.attempts import read_attempts
    from lorid.method.stopping import Policy
    from lorid.report.analysis import analyse
    from lorid.report.data import ReportData
    from lorid.report.files import write_report

    Policy(rule=rule, max_rounds=max_rounds)
    rows = list(read_lines(file))
    read_attempts(rows, source=str(file))
    attempts = [row for _, row in rows if isinstance(row, dict)]
    data = ReportData(run_name=file.stem, rule=rule, max_rounds=max_rounds, attempts=attempts)
    write_report(analyse(data), folder)


def _fetch_report(run: str, folder: Path, *, store: str) -> None:
    from lorid.artifacts.records import fetch, list_records
    from lorid.artifacts.store import open_store

    opened = open_store(store)
    records = list_records(opened, kind="report", name=run)
    if not records:
        raise DataError(f"{store} holds no report of {run!r}; run jobs/distill.py first")
    fetch(opened, records[-1], into=folder)


def _put_report(made: Path, output: Path) -> Path:
    """Copy a report's files to where they are wanted; returns the page's place."""
    from lorid.report.files import FIGURES_FOLDER, PAGE_FILE

    page = output if output.suffix == ".html" else output / PAGE_FILE
    page.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(made / PAGE_FILE, page)
    # A report from before there were figures has the page alone.
    if (made / FIGURES_FOLDER).is_dir():
        shutil.copytree(made / FIGURES_FOLDER, page.parent / FIGURES_FOLDER, dirs_exist_ok=True)
    return page


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)

"""The command line: `lorid ...`.

Exit codes: 0 done, 2 the user's mistake (one line: cause and fix), 130 interrupted, 1 the rest.
Ray, torch and vLLM are imported inside the commands that need them, so `--help` is instant.
"""

import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lorid.config import dump_config, load_config
from lorid.errors import DataError, LoridError

DEFAULT_URL = "http://127.0.0.1:8000"
INTERRUPTED = 130
STOPPED = "interrupted: what is finished is kept, run again to resume"
GRADE_BATCH = 32

# typer brings a click of its own, and names only its leaves.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="lorid: distil a teacher's knowledge into a student (LoRID), and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)
config_app = typer.Typer(help="Show and check configs.", no_args_is_help=True)
runs_app = typer.Typer(help="Records of runs in a store.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(runs_app, name="runs")

Preset = Annotated[str | None, typer.Option(help="start from a preset, such as demo")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="change one field: a.b=c")]
Store = Annotated[str, typer.Option(help="folder or s3://bucket/prefix")]
Url = Annotated[str, typer.Option(help="the endpoint")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
DEFAULT_STORE = "lorid-demo/store"


@app.callback()
def common(
    debug: Annotated[bool, typer.Option(help="show tracebacks")] = False,
) -> None:
    """Options before the command."""
    os.environ["LORID_DEBUG"] = "1" if debug else ""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for the store and the report")] = Path(
        "lorid-demo"
    ),
    overrides: Overrides = None,
) -> None:
    """Run the whole pipeline on this machine with the shipped models.

    Example: lorid demo --out /tmp/lorid-demo
    """
    from lorid.artifacts.records import fetch
    from lorid.artifacts.store import open_store
    from lorid.distributed.job import interrupt_on_sigterm
    from lorid.distributed.pipeline import run_pipeline

    interrupt_on_sigterm()
    changes = [f"store={out / 'store'}", *(overrides or [])]
    config = load_config(None, preset="demo", overrides=changes)
    records = run_pipeline(config)
    fetch(open_store(config.store), records["report"], into=out)
    typer.echo(f"\nReport: {out / 'report.html'}")
    typer.echo("Try next, in two terminals:")
    typer.echo(f"  {_typed('serve')} run serve.app:build run={config.store}#{config.name}")
    question = "Mia has 24 red cards and 36 blue cards. Then a third of the cards are lost."
    typer.echo(f'  {_typed("lorid")} solve "{question} How many cards are left?"')


@config_app.command("show")
def config_show(
    file: Annotated[Path | None, typer.Argument(help="config file")] = None,
    preset: Preset = None,
    overrides: Overrides = None,
) -> None:
    """Print the complete resolved config.

    Example: lorid config show --preset demo --set training.rank=64
    """
    typer.echo(dump_config(load_config(file, preset=preset, overrides=overrides or [])), nl=False)


@config_app.command("check")
def config_check(
    file: Annotated[Path, typer.Argument(help="config file")], overrides: Overrides = None
) -> None:
    """Report every problem of a config at once; exit 2 when there is one.

    Example: lorid config check run.yaml
    """
    config = load_config(file, overrides=overrides or [])
    typer.echo(f"{file}: ok (run {config.name!r}, store {config.store})")


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
    table = Table("artifact", "made", "seconds", "details", box=None, pad_edge=False)
    for record in records:
        details = ", ".join(f"{k}={v}" for k, v in record.details.items() if not _is_nested(v))
        table.add_row(record.address, record.created_at, f"{record.seconds:.0f}", details)
    Console().print(table)


@runs_app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(help="name of the run")],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Show a run's artifacts, from its data to its report, with what each came from.

    Example: lorid runs show demo --store lorid-demo/store
    """
    from lorid.artifacts.records import list_records
    from lorid.artifacts.store import open_store

    records = [
        record
        for record in list_records(open_store(store))
        if record.name == run or (record.kind == "adapter" and record.name.startswith(f"{run}-"))
    ]
    if not records:
        raise DataError(f"{store} holds no run {run!r}; `lorid runs list --store ...` lists all")
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records]))
        return
    for record in records:
        size = sum(entry.size for entry in record.files) / 1024**2
        typer.echo(f"{record.address}  {record.created_at}  {record.seconds:.0f} s  {size:.1f} MiB")
        for parent in record.parents:
            typer.echo(f"    from {parent}")


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

    done = {row["id"] for _, row in _jsonl(output)} if output.exists() else set()
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
    rows = [row for _, row in _jsonl(output)]
    verdicts = [row.get("verdict") for row in rows]
    typer.echo(
        f"{len(rows)} graded: {verdicts.count('correct')} correct, "
        f"{verdicts.count('incorrect')} incorrect, {verdicts.count('undecided')} undecided, "
        f"{verdicts.count(None)} errors -> {output}"
    )


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="attempts file (JSONL)")],
    rule: Annotated[str, typer.Option(help="paper, same-round, majority, ...")] = "paper",
    max_rounds: Annotated[int, typer.Option(min=1)] = 20,
    per_problem: Annotated[Path | None, typer.Option(help="write a line a problem here")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge logged attempts under any rule, without a model.

    Example: lorid replay attempts.jsonl --rule majority --json
    """
    from lorid.method.equivalence import AnswerChecker
    from lorid.method.feedback import Policy
    from lorid.method.scoring import parse_attempts_line, summarize
    from lorid.method.scoring import replay as replay_attempts

    attempts = []
    for number, row in _jsonl(file):
        try:
            attempts.append(parse_attempts_line(row))
        except DataError as error:
            raise DataError(f"{file}, line {number}: {error}") from error
    policy = Policy(rule=rule, max_rounds=max_rounds)
    with AnswerChecker() as checker:
        scores = replay_attempts(attempts, policy=policy, checker=checker)
    if per_problem is not None:
        rows = (
            {
                "problem_id": score.problem_id,
                "answer": score.answer,
                "outcome": score.outcome,
                "num_rounds": score.num_rounds,
                "correct": score.correct,
            }
            for score in scores
        )
        per_problem.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary = summarize(scores, policy=policy).to_dict()
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for name, value in summary.items():
        typer.echo(f"{name:<20} {f'{value:.4f}' if isinstance(value, float) else value}")


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


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except typer.Abort:
        _stop(STOPPED, INTERRUPTED)
    except UsageError as error:
        command = error.ctx.command_path if error.ctx else "lorid"
        _stop(f"error: {error.format_message()} (see {command} --help)", 2)
    except LoridError as error:
        if os.environ.get("LORID_DEBUG"):
            traceback.print_exc()
        _stop(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        _stop(STOPPED, INTERRUPTED)


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of an interrupted stage may still wait for Ray; nothing of theirs is wanted any more.
    os._exit(code)


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object")
        yield number, row


def _items(path: Path) -> list[dict[str, Any]]:
    items = []
    for number, row in _jsonl(path):
        item = {
            key: row[key] for key in ("id", "question", "reference", "submission") if key in row
        }
        item["id"] = str(item.get("id", number))
        items.append(item)
    if not items:
        raise DataError(f"{path} holds no items")
    return items


def _typed(command: str) -> str:
    """How to type a command of this environment: by name where the shell finds it, else by path."""
    script = Path(sys.executable).with_name(command)
    found = shutil.which(command)
    if found and Path(found) == script:
        return command
    folder = Path.cwd()
    return str(script.relative_to(folder) if script.is_relative_to(folder) else script)


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)

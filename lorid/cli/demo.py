"""`lorid demo`: the whole pipeline on this machine."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from lorid.cli.app import Overrides, app
from lorid.config import load_config


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
    from lorid.distributed.pipeline import run_pipeline
    from lorid.interrupts import interrupt_on_sigterm

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


def _typed(command: str) -> str:
    """How to type a command of this environment: by name where the shell finds it, else by path."""
    script = Path(sys.executable).with_name(command)
    found = shutil.which(command)
    if found and Path(found) == script:
        return command
    folder = Path.cwd()
    return str(script.relative_to(folder) if script.is_relative_to(folder) else script)

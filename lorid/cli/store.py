"""`lorid store`: care for a store."""

import json
from typing import Annotated

import typer

from lorid.cli.app import AsJson, app

ABOUT = "Care for a store of artifacts.\n\nExample: lorid store gc s3://bucket/lorid"
store_app = typer.Typer(help=ABOUT, no_args_is_help=True)
app.add_typer(store_app, name="store")
_HOUR_S = 3600


@store_app.callback(help=ABOUT)
def about() -> None:
    """Care for a store of artifacts."""


@store_app.command("gc")
def store_gc(
    store: Annotated[str, typer.Argument(help="folder or s3://bucket/prefix")],
    delete: Annotated[bool, typer.Option("--delete", help="remove them; else only list")] = False,
    grace_hours: Annotated[
        float, typer.Option(min=0.0, help="leave alone what is younger; safe from 2 upwards")
    ] = 24.0,
    as_json: AsJson = False,
) -> None:
    """List what interrupted writers left in a store; --delete removes it.

    Contents that no record names, temporary files, unfinished uploads. What a record names stays.

    Example: lorid store gc s3://bucket/lorid --delete
    """
    from lorid.artifacts.gc import Leftover, find_leftovers, remove_leftovers
    from lorid.artifacts.store import open_store

    opened = open_store(store)
    leftovers = find_leftovers(opened, grace_s=grace_hours * _HOUR_S)
    done: list[Leftover] = []

    def show(leftover: Leftover) -> None:
        done.append(leftover)
        if not as_json:
            entry = leftover.entry
            typer.echo(f"{entry.key}  {entry.size} bytes  {leftover.what}")

    if delete:
        remove_leftovers(opened, leftovers, grace_s=grace_hours * _HOUR_S, removed=show)
    else:
        for leftover in leftovers:
            show(leftover)
    num_bytes = sum(leftover.entry.size for leftover in done)
    if as_json:
        found = [{"key": one.entry.key, "bytes": one.entry.size, "what": one.what} for one in done]
        typer.echo(json.dumps({"deleted": delete, "num_bytes": num_bytes, "leftovers": found}))
        return
    verb = "removed" if delete else "left over (nothing removed; --delete removes them)"
    typer.echo(f"{len(done)} things, {num_bytes / 10**6:.1f} MB {verb}")

"""The app that every command joins, the options that commands share, and how a command ends.

Rich and typer heed NO_COLOR by themselves, and colour nothing that is no terminal; `--no-color`
sets it for this process and those that it starts.
"""

import os
import sys
import traceback
from typing import Annotated, Any

import typer

from lorid.cli import completion
from lorid.errors import LoridError
from lorid.interrupts import INTERRUPTED, leave, repeat_lost_interrupts

STOPPED = "interrupted: what is finished is kept, run again to resume"
DEFAULT_STORE = "lorid-demo/store"

# typer brings a click of its own, and names only its leaves.
UsageError: Any = typer.BadParameter.__base__

ABOUT = """lorid: distil a teacher's knowledge into a student (LoRID), and serve it.

Example: lorid demo

Example: lorid config check run.yaml

Example: lorid triple list --help
"""

app = typer.Typer(
    help=ABOUT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)

Preset = Annotated[
    str | None,
    typer.Option(help="start from a preset, such as demo", autocompletion=completion.presets),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="change one field: a.b=c", autocompletion=completion.fields),
]
Store = Annotated[str, typer.Option(help="folder or s3://bucket/prefix")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lorid {version('lorid')}")
        raise typer.Exit


@app.callback(help=ABOUT)
def common(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="no colours, as NO_COLOR=1 says too")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="print the version", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options before the command."""
    os.environ["LORID_DEBUG"] = "1" if debug else ""
    if no_color:
        os.environ["NO_COLOR"] = "1"


def say_next(line: str) -> None:
    """What to do after this, on stderr: what a command prints stays data."""
    typer.echo(f"next: {line}", err=True)


def command_tree() -> Any:
    """All commands; an example stays on its line in their help, since broken ones cannot be copied.

    (typer's click is its own: no types.)
    """

    def keep_examples(command: Any) -> None:
        # A paragraph behind a backspace is not wrapped.
        command.help = (command.help or "").replace("\n\nExample:", "\n\n\b\nExample:")
        for child in getattr(command, "commands", {}).values():
            keep_examples(child)

    root = typer.main.get_command(app)
    keep_examples(root)
    return root


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    repeat_lost_interrupts()
    try:
        sys.exit(command_tree()(prog_name="lorid", standalone_mode=False) or 0)
    except typer.Abort:
        _stop(STOPPED, INTERRUPTED)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # A group without a command: its help, which the error has as its text.
            _stop(error.format_message(), 2)
        command = error.ctx.command_path if error.ctx else "lorid"
        _stop(f"error: {error.format_message()} (see {command} --help)", 2)
    except LoridError as error:
        if os.environ.get("LORID_DEBUG"):
            traceback.print_exc()
        _stop(f"error: {error}", error.exit_code)
    except OSError as error:
        if error.filename is None or os.environ.get("LORID_DEBUG"):
            raise
        # A path that the user named: an output, mostly; those that are read say more themselves.
        _stop(f"error: cannot use {error.filename}: {error.strerror}; name another path", 2)
    except KeyboardInterrupt:
        _stop(STOPPED, INTERRUPTED)


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    # Threads of an interrupted stage may still wait for Ray; nothing of theirs is wanted any more.
    leave(code)

"""The app that every command joins, the options that commands share, and how a command ends."""

import os
import sys
import traceback
from typing import Annotated, Any

import typer

from lorid.errors import LoridError

INTERRUPTED = 130
STOPPED = "interrupted: what is finished is kept, run again to resume"
DEFAULT_STORE = "lorid-demo/store"

# typer brings a click of its own, and names only its leaves.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="lorid: distil a teacher's knowledge into a student (LoRID), and serve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=True,
)

Preset = Annotated[str | None, typer.Option(help="start from a preset, such as demo")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="change one field: a.b=c")]
Store = Annotated[str, typer.Option(help="folder or s3://bucket/prefix")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option(help="show tracebacks")] = False,
) -> None:
    """Options before the command."""
    os.environ["LORID_DEBUG"] = "1" if debug else ""


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
    except OSError as error:
        if error.filename is None or os.environ.get("LORID_DEBUG"):
            raise
        # A path that the user named: an output, mostly; those that are read say more themselves.
        _stop(f"error: cannot use {error.filename}: {error.strerror}; name another path", 2)
    except KeyboardInterrupt:
        _stop(STOPPED, INTERRUPTED)


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of an interrupted stage may still wait for Ray; nothing of theirs is wanted any more.
    os._exit(code)

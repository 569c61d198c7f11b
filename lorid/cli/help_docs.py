"""docs/cli.md from the commands' own help.

python -m lorid.cli.help_docs > docs/cli.md

A test compares the file with what this writes: it cannot go stale. The prose is here, what a
command or a job knows about itself comes from its `--help`.
"""

import io
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lorid.cli.app import command_tree

WIDTH = 80
JOBS = Path(__file__).parents[2] / "jobs"
HEAD = """\
# Commands

<!-- written by `python -m lorid.cli.help_docs > docs/cli.md` (`make docs`); do not edit -->

`lorid` is a noun and a verb (`lorid triple promote`), or a verb alone where there is one noun
only (`lorid solve`). Every page below is what `--help` prints.

**Exit codes.** 0 done; 2 your mistake, one line says cause and fix; 130 interrupted, what is
finished is kept; 1 anything else. Jobs have 3 too: the cap on money is reached. `lorid --debug
COMMAND` adds the traceback.

**For programs.** Every command that prints data takes `--json`: JSON alone on stdout, one value.
Notes, progress and errors are on stderr.

**Colours** are for terminals. `NO_COLOR=1`, `lorid --no-color COMMAND` and `TERM=dumb` switch
them off; in a file or a pipe there are none, and progress is a plain line every ten seconds.

**Completion** of commands, options, presets, rules, roles, fields of `--set`, and of the runs,
triples and aliases of a store in a folder (typer's; a test types into a real bash):

```bash
lorid --install-completion              # for your shell: bash, zsh, fish, PowerShell
eval "$(lorid --show-completion bash)"  # or for this session of bash alone
```

**Environment.** `LORID_API_KEY` is the endpoint's token, `HF_TOKEN` the hub's, the teacher's key
is in the variable that `teacher.api.api_key_env` names; a store in S3 takes boto3's
([stores.md](stores.md)).
"""


def markdown() -> str:
    """The whole file."""
    root = command_tree()
    pages = [*_pages(root, name="lorid", parent=None), *_job_pages()]
    contents = (f"- [`{name}`](#{_anchor(name)})\n" for name, _ in pages)
    sections = (f"\n## {name}\n\n```\n{text}\n```\n" for name, text in pages)
    return "".join([HEAD, "\n", *contents, *sections])


def _pages(command: Any, *, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    """A command's help, then those of its commands. (typer keeps its click to itself: no types.)"""
    context = command.context_class(command, info_name=name, parent=parent)
    context.terminal_width = WIDTH
    yield context.command_path, context.get_help().rstrip()
    for each, child in getattr(command, "commands", {}).items():
        yield from _pages(child, name=each, parent=context)


def _job_pages() -> Iterator[tuple[str, str]]:
    """What `python jobs/NAME.py --help` prints, each asked in this process."""
    for path in sorted(JOBS.glob("[!_]*.py")):
        yield f"jobs/{path.name}", _printed_help(path).rstrip()


def _printed_help(script: Path) -> str:
    printed = io.StringIO()
    # argparse asks for the width of the terminal, and colours from Python 3.14 on.
    settings = {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    with (
        patch.dict(os.environ, settings),
        patch.object(sys, "argv", [str(script), "--help"]),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


def _anchor(name: str) -> str:
    """The heading's link, as GitHub makes it."""
    kept = (letter for letter in name.lower() if letter.isalnum() or letter in " -_")
    return "".join(kept).replace(" ", "-")


def main() -> None:
    """Print the file."""
    print(markdown(), end="")


if __name__ == "__main__":
    main()

"""The help of every command: in docs/cli.md as it is now, with an example, with --json."""

import io
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store
from lorid.cli.app import command_tree
from lorid.cli.help_docs import markdown

ROOT = Path(__file__).parents[2]
# These print what they do, for people.
BASH = shutil.which("bash") or "/bin/bash"
WITHOUT_JSON = {"lorid demo"}


def commands():
    """Every command by its name, groups too."""

    def walk(command, path):
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}")

    return dict(walk(command_tree(), "lorid"))


def test_the_page_is_what_the_commands_say_now():
    written = (ROOT / "docs" / "cli.md").read_text()
    assert written == markdown(), "run `make docs`: docs/cli.md is not what --help prints"


@pytest.mark.parametrize("name", commands())
def test_help_has_an_example_to_copy(lorid, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = lorid(*name.split()[1:], "--help")
    assert code == 0
    # Whole on its line, however narrow the terminal: broken ones cannot be copied.
    examples = re.findall(r"^  Example: (lorid .*)\n\n", out, flags=re.MULTILINE)
    assert examples
    assert any(one.startswith(name) for one in examples)


@pytest.mark.parametrize(
    "name", [name for name, one in commands().items() if not hasattr(one, "commands")]
)
def test_what_prints_data_prints_it_as_json_too(name):
    options = {option for one in commands()[name].params for option in one.opts}
    assert ("--json" in options) == (name not in WITHOUT_JSON)


@pytest.fixture
def typed(tmp_path):
    """Types into a real bash on a terminal, with lorid's completion; gives what lines become."""
    environment = {
        "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TERM": "dumb", "PS1": "", "SHELL": BASH,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        [BASH, "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)

    def until(end):
        text = ""
        while not re.search(end, text):
            text += os.read(ours, 4096).decode()
        return text

    def after_tab(line):
        # Readline has completed the line when it sends it with what follows the TAB.
        os.write(ours, f"{line}\t~".encode())
        text = until("~")
        os.write(ours, b"\x15")  # Ctrl-U: nothing of it is run
        return text[text.rindex("lorid ") :].removesuffix("~")

    os.write(ours, b'eval "$(lorid --show-completion bash)"; echo rea""dy\n')
    until("ready")
    yield after_tab
    os.close(ours)
    shell.wait()


def test_bash_completes_commands_and_names(typed, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "rows.jsonl").write_text("{}\n")
    store = open_store(str(tmp_path / "shop"))
    publish(store, tmp_path / "made", kind="data", name="my-first-run", inputs={"seed": 1})
    lines = {
        "lorid triple rollb": "lorid triple rollback ",
        "lorid plan --preset gsm8k_m": "lorid plan --preset gsm8k_mistral ",
        "lorid config show --set training.ran": "lorid config show --set training.rank= ",
        "lorid runs show --store shop my-f": "lorid runs show --store shop my-first-run ",
    }
    for line, whole in lines.items():
        assert typed(line).startswith(whole)


def test_colours_switch_off(lorid, monkeypatch, tmp_path):
    # Set and taken away again: what the command sets goes with the test.
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "xterm-256color")

    def shown():
        console = Console(file=io.StringIO(), force_terminal=True)
        console.print("[red]word[/red]")
        return console.file.getvalue()

    assert lorid("runs", "list", "--store", str(tmp_path))[0] == 0
    assert "\x1b[31m" in shown()
    assert lorid("--no-color", "runs", "list", "--store", str(tmp_path))[0] == 0
    assert "\x1b[31m" not in shown()

"""What files and commands do, in this process: none of these tests may start Ray."""

import os
import sys

import pytest

from lorid import cli


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A test here that starts Ray fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a test of one process started Ray")

    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", refuse)


@pytest.fixture
def lorid(monkeypatch, capsys):
    """Runs a command in this process; returns exit code, output and errors."""

    def run(*arguments: str):
        codes: list[int] = []

        def leave(code: int) -> None:
            codes.append(code)
            raise SystemExit(code)

        monkeypatch.setattr(sys, "argv", ["lorid", *arguments])
        # Only the process's hard exit is replaced: it would end the test run.
        monkeypatch.setattr(os, "_exit", leave)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return run

"""The doors in jobs/: short, with an example each, one line for a mistake, and what comes next."""

import runpy
import signal
import sys
from pathlib import Path

import pytest

from lorid.distributed import job

ROOT = Path(__file__).parents[2]
DOORS = sorted([*(ROOT / "jobs").glob("[!_]*.py"), *(ROOT / "serve").glob("[!_]*.py")])


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a job in this process up to its pipeline; gives exit code and stderr."""
    monkeypatch.setattr(job, "run_pipeline", lambda config, stages: None)
    before = signal.getsignal(signal.SIGTERM)

    def start(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
        return left.value.code, capsys.readouterr().err

    yield start
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("path", DOORS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_doors_are_no_rooms(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    assert path.name in "\n".join(lines) or "serve.app" in "\n".join(lines), "no example"


@pytest.mark.parametrize(
    "arguments",
    [[], ["--confg", "run.yaml"], ["--config", "missing.yaml"], ["--preset", "huge"]],
    ids=" ".join,
)
def test_a_mistake_is_one_line(run, arguments):
    code, err = run("distill", *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


def test_each_job_says_what_comes_next(run):
    code, err = run("train_adapters", "--preset", "demo", "--set", "name=mine")
    assert (code, err) == (0, "next: python jobs/evaluate.py --preset demo --set name=mine\n")
    code, err = run("distill", "--preset", "demo", "--set", "store=shop")
    assert code == 0
    assert "next: serve run serve.app:build run=shop#demo\n" in err

"""docs/tutorial.md in small: its commands exist, its config is valid, its figures are measured.

tests/cluster/test_tutorial_run.py runs the commands themselves.
"""

import importlib.util
import json
import runpy
import signal
import sys

import pytest
import yaml
from command_lines import parse
from tutorial_commands import ROOT, TUTORIAL, commands, config_text, items_text, miniature

from lorid.api import GradeItem
from lorid.config import parse_config
from lorid.distributed import job

LORID = [words for words in commands() if words[0] == "lorid"]
JOBS = [words for words in commands() if words[0] == "python"]
SERVE = [words for words in commands() if words[0] == "serve"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the reader stands: beside run.yaml, with the repository's folders."""
    (tmp_path / "run.yaml").write_text(miniature(teacher_url="http://127.0.0.1:9/v1", port=8123))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_is_of_a_kind_that_is_tried():
    assert len(LORID) + len(JOBS) + len(SERVE) == len(commands())
    assert min(map(len, (LORID, JOBS, SERVE))) > 0


@pytest.mark.parametrize("words", LORID, ids=" ".join)
def test_lorid_takes_the_command(words):
    parse(words[1:])


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_jobs_take_the_command_and_its_config(words, folder, monkeypatch):
    started = []
    monkeypatch.setattr(job, "run_pipeline", lambda config, stages: started.append(config))
    monkeypatch.setattr(sys, "argv", words[1:])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 0
    (config,) = started
    assert config.teacher.kind == "api"


@pytest.mark.parametrize("words", SERVE, ids=" ".join)
def test_serve_takes_the_builder_and_the_run(words):
    _, run, target, address = words
    assert (run, target) == ("run", "serve.app:build")
    assert address == "run=lorid-store#gsm8k-qwen"


def test_the_config_is_valid_and_trains_what_the_text_says(lorid, tmp_path):
    (tmp_path / "run.yaml").write_text(config_text())
    assert lorid("config", "check", str(tmp_path / "run.yaml"))[0] == 0
    config = parse_config(config_text())
    assert (config.training.mode, config.training.rank) == ("fused", 128)
    assert config.data.hub_id == "openai/gsm8k"


def test_the_miniature_can_be_planned(lorid, folder):
    code, out, _ = lorid("plan", "run.yaml", "--train-tokens-per-s", "23000", "--json")
    plan = json.loads(out)
    assert (code, plan["run"]) == (0, yaml.safe_load(config_text())["name"])
    assert plan["teacher"]["price"] > 0


def test_the_items_are_what_the_endpoint_takes():
    rows = [json.loads(line) for line in items_text().splitlines()]
    assert [GradeItem.model_validate(row).id for row in rows] == ["1", "2"]


def test_plan_and_prices_are_those_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.find_spec("tutorial")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    newest = sorted((ROOT / "benchmarks" / "results").glob("tutorial-*.json"))[-1]
    figures = json.loads(newest.read_text())
    inputs = yaml.safe_load((ROOT / "benchmarks" / "sizing.yaml").read_text())
    page = TUTORIAL.read_text()
    assert module.table(figures, inputs) in page
    assert "\n".join(figures["plan_lines"]) in page

"""What cannot be trained is one line, exit code 2, and nothing was started: the command itself."""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from triple_files import write_adapter

from lorid.artifacts.enriched import write_enriched
from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store
from lorid.config import parse_config
from lorid.demo.generator import generate
from lorid.distributed.inputs import knowledge_inputs
from lorid.distributed.job import run_job
from lorid.method.problems import EnrichedProblem
from lorid.presets import demo
from lorid.training.adapters import load_base

SMALL = {"rank": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]}
BASE = Path(demo().student.path)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """An adapter of the demo's base, as PEFT alone writes it."""
    folder = tmp_path_factory.mktemp("adapter")
    settings = LoraConfig(r=2, lora_alpha=4, target_modules=SMALL["target_modules"],
                          task_type="CAUSAL_LM")  # fmt: skip
    get_peft_model(load_base(demo().student), settings).save_pretrained(str(folder))
    return folder


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Run the train job; returns its error, which must be one line with exit code 2."""

    def run(problems: Iterable[EnrichedProblem] | None = None, **training: object) -> str:
        student = training.pop("student", {})
        sections = {
            "preset": "demo", "store": str(tmp_path / "store"), "training": training,
            "student": student,
        }  # fmt: skip
        text = json.dumps(sections)
        config = tmp_path / "run.yaml"
        config.write_text(text)
        if problems is None:
            problems = generate(split="train", count=4, seed=1)
        write_enriched(tmp_path / "set", problems)
        parsed = parse_config(text)
        store, inputs = open_store(parsed.store), knowledge_inputs(parsed)
        publish(store, tmp_path / "set", kind="knowledge", name=parsed.name, inputs=inputs)
        monkeypatch.setattr("sys.argv", ["train_adapters.py", "--config", str(config)])
        monkeypatch.setattr("lorid.distributed.cluster.connected", pytest.fail)
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert run_job(("train",), description="Train.") == 2
        finally:
            signal.signal(signal.SIGTERM, before)
        lines = capsys.readouterr().err.strip().splitlines()
        (error,) = [line for line in lines if line.startswith("error: ")]
        assert error == lines[-1]
        return error

    return run


def untargeted(problem: EnrichedProblem) -> EnrichedProblem:
    """The problem as a foreign tool might leave it: no rationale, no rules."""
    bare = dataclasses.replace(problem.problem, rationale="", style="math")
    return dataclasses.replace(problem, problem=bare, knowledge=())


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"target_modules": ["q_proj", "nope"]}, ["no linear layer 'nope'", "it has down_proj"]),
        ({"rank": 400}, ["training.rank: 400 exceeds the width 192", "lower it to 192"]),
        ({"max_sequence_tokens": 16}, ["no example of at most 16 tokens among 4", "raise"]),
        ({"max_sequence_tokens": 20, "too_long": "truncate"}, ["no example of at most 20"]),
        ({"validation_fraction": 1e-6}, ["holds out 0 of 4 examples", "change it"]),
        ({"start_from": {"deep_reasoner": "nowhere"}}, ["nowhere holds no adapter_model.safetens"]),
        ({"use_dora": True}, ["vLLM serves no DoRA adapters"]),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(refused, training, words):
    error = refused(**training)
    assert all(word in error for word in words)


def test_problems_without_targets(refused):
    problems = map(untargeted, generate(split="train", count=4, seed=1))
    assert "none of 4 problems has a target to learn from; run" in refused(problems)


def test_a_tokenizer_without_an_end(refused, tmp_path):
    base = shutil.copytree(BASE, tmp_path / "base")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    error = refused(student={"path": str(base)})
    assert "the tokenizer has no EOS token" in error
    assert "set student.family" in error


def test_a_tokenizer_of_another_family(refused):
    error = refused(student={"family": "llama2"})
    assert "the tokenizer has no BOS token" in error


def test_an_adapter_of_a_base_of_another_shape(refused, tmp_path):
    other = write_adapter(tmp_path / "other")
    error = refused(**SMALL, start_from={"deep_reasoner": str(other)})
    assert "was it trained on another base?" in error


def test_an_adapter_of_another_base_of_the_same_shape(refused, adapter, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "start")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "org/other-7b"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    start = {"deep_reasoner": str(folder)}
    error = refused(**SMALL, start_from=start, student={"path": "org/base-7b"})
    assert "is of org/other-7b, not of org/base-7b; set student.path=org/other-7b" in error

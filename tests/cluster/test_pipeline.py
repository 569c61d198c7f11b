"""The real pipeline, small: real Ray, vLLM, training and HTTP, over a folder."""

import json
import socket
from pathlib import Path

import pytest
from small import small_config_text

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import evaluation_of, read_manifest
from lorid.config import RunConfig, dump_config, parse_config
from lorid.distributed.cluster import connected
from lorid.distributed.pipeline import run_pipeline
from lorid.errors import ConfigError, ServeError, TrainingError
from lorid.method.attempts import parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.replay import replay
from lorid.method.roles import Role
from lorid.method.stopping import Policy

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ray_cluster():
    with connected():
        yield


def test_the_whole_pipeline_on_a_folder_then_everything_is_skipped(ray_cluster, tmp_path):
    config = parse_config(small_config_text(store=tmp_path / "store"))
    lines: list[str] = []
    records = run_pipeline(config, announce=lines.append)
    store = open_store(config.store)

    knowledge = records["knowledge"].details
    assert knowledge["num_kept"] + knowledge["num_rejected"] == 48
    assert knowledge["num_kept"] > 40

    kinds = [record.kind for record in list_records(store)]
    assert sorted(kinds) == sorted(
        ["data", "knowledge", *["adapter"] * 3, "triple", "evaluation", "report"]
    )

    evaluation = fetch(store, records["evaluate"], into=tmp_path / "evaluation")
    rows = (evaluation / "attempts.jsonl").read_text().splitlines()
    attempts = [parse_attempts_line(row) for row in rows]
    assert len(attempts) == 6
    assert len((evaluation / "base.jsonl").read_text().splitlines()) == 6
    with AnswerChecker() as checker:
        scores = replay(attempts, policy=Policy(rule="paper", max_rounds=3), checker=checker)
    assert [score.num_rounds for score in scores] == [
        len(json.loads(row)["intuitive"]) for row in rows
    ]

    manifest = read_manifest(store, records["triple"])
    assert manifest.data is not None
    assert manifest.knowledge is not None
    assert manifest.data.address == records["prepare"].address
    assert manifest.knowledge.fingerprint == records["knowledge"].fingerprint
    addresses = {entry.address for entry in manifest.adapters.values()}
    assert addresses == {record.address for record in list_records(store, kind="adapter")}
    result = evaluation_of(store, records["triple"])
    assert result is not None
    assert result.num_correct == sum(score.correct is True for score in scores)
    assert result.mean_rounds == sum(score.num_rounds for score in scores) / 6

    html = fetch(store, records["report"], into=tmp_path / "report") / "report.html"
    assert "small" in html.read_text()

    again: list[str] = []
    repeated = run_pipeline(config, announce=again.append)
    assert repeated == {name: records[name] for name in repeated}


@pytest.fixture(scope="module")
def trained(ray_cluster, tmp_path_factory):
    """A run whose three roles are trained: its config."""
    store = tmp_path_factory.mktemp("trained") / "store"
    config = parse_config(small_config_text(store=store, name="again"))
    run_pipeline(config, stages=("prepare", "knowledge", "train"), announce=lambda _: None)
    return config


def test_only_a_missing_role_is_trained_again(trained):
    config, store = trained, open_store(trained.store)
    adapters = {record.name: record for record in list_records(store, kind="adapter")}
    lost = adapters[f"again-{Role.KNOWLEDGE_GENERATOR}"]
    (Path(config.store) / lost.address / "record.json").unlink()

    lines: list[str] = []
    run_pipeline(config, stages=("train",), announce=lines.append)
    trained = [line for line in lines if "already trained" in line]
    assert len(trained) == 2
    found = {record.name: record for record in list_records(store, kind="adapter")}
    weights = {
        name: [entry.sha256 for entry in record.files if entry.path.endswith(".safetensors")]
        for name, record in found.items()
    }
    # Same seed, same data, same settings: training again gives the same weights.
    assert weights[lost.name] == [
        entry.sha256 for entry in lost.files if entry.path.endswith(".safetensors")
    ]


def changed(config: RunConfig, *overrides: str) -> RunConfig:
    return parse_config(dump_config(config), overrides=overrides)


def test_a_rank_that_does_not_fit_names_the_field_and_every_role(trained):
    config = changed(trained, "training.rank=400", "training.max_failures=0")
    with pytest.raises(TrainingError, match=r"training\.rank: 400 exceeds the width 192") as caught:
        run_pipeline(config, stages=("train",), announce=lambda _: None)
    assert caught.value.exit_code == 2
    assert all(str(role) in str(caught.value) for role in Role)


def test_a_port_in_use_is_named_before_anything_starts(trained):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = changed(trained, f"serving.port={port}")
        with pytest.raises(ServeError, match=rf"{port}: .*; .*serving\.port"):
            run_pipeline(config, stages=("evaluate",), announce=lambda _: None)


def test_a_teacher_that_cannot_be_loaded_is_one_line(trained, tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    config = changed(trained, f"teacher.model.path={tmp_path}")
    with pytest.raises(ConfigError, match="cannot load the model") as caught:
        run_pipeline(config, stages=("knowledge",), announce=lambda _: None)
    assert "\n" not in str(caught.value)


def test_a_question_that_is_too_long_is_set_aside_and_the_rest_goes_on(trained, tmp_path):
    lines = [
        json.dumps({"question": question, "answer": f"It is 5 + {n} = {5 + n}.\n#### {5 + n}"})
        for n, question in enumerate(["apples " * 600, *(f"Add 5 and {n}." for n in range(4))])
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    config = changed(
        trained,
        "data.source=jsonl",
        f"data.train={tmp_path / 'rows.jsonl'}",
        f"data.test={tmp_path / 'test.jsonl'}",
    )
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "?", "answer": "#### 1"}))
    records = run_pipeline(config, stages=("prepare", "knowledge"), announce=lambda _: None)
    details = records["knowledge"].details
    assert details["num_problems"] == 5
    assert details["rejected_because"]["no-response"] == 1

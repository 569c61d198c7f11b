"""The real pipeline, small: real Ray, vLLM, training and HTTP, over a folder."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from small import small_config_text
from typer.testing import CliRunner

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.artifacts.training_record import check_records, read_training_record
from lorid.artifacts.triples import evaluation_of, read_manifest, role_folders
from lorid.cli.app import app
from lorid.config import ModelConfig, RunConfig, dump_config, parse_config
from lorid.distributed.cluster import connected
from lorid.distributed.pipeline import run_pipeline
from lorid.engines.vllm import VllmEngine
from lorid.errors import AdapterMismatch, ConfigError, ServeError
from lorid.jsonl import read_jsonl
from lorid.method.attempts import parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.replay import replay
from lorid.method.roles import Role
from lorid.method.stopping import Policy
from lorid.method.templates import TokenizerLike, encode_prompt
from lorid.training.adapters import load_base, load_tokenizer

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ray_cluster():
    with connected():
        yield


@pytest.fixture(scope="module")
def finished(ray_cluster, tmp_path_factory):
    """A whole run: its config, and the record of each stage."""
    store = tmp_path_factory.mktemp("finished") / "store"
    config = parse_config(small_config_text(store=store))
    return config, run_pipeline(config, announce=lambda _: None)


@pytest.fixture
def trained(finished):
    """The config of a run whose three roles are trained."""
    config, _ = finished
    return config


def test_the_whole_pipeline_on_a_folder_then_everything_is_skipped(finished, tmp_path):
    config, records = finished
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

    folders = role_folders(fetch(store, records["triple"], into=tmp_path / "triple"))
    assert check_records(manifest, folders).startswith("3 of 3")
    for role, entry in manifest.adapters.items():
        told = read_training_record(folders[role])
        assert told is not None
        assert (told.knowledge, told.data) == (manifest.knowledge, manifest.data)
        steps = [row for _, row in read_jsonl(folders[role] / "metrics.jsonl")]
        assert (told.result.step, told.result.last_loss) == (len(steps), steps[-1]["loss"])
        assert f"rank {entry.rank} " in (folders[role] / "README.md").read_text()
        settings = json.loads((folders[role] / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == manifest.base.name
        assert {"tokenizer.json", *told.tokenizer_files} <= set(os.listdir(folders[role]))

    folder = fetch(store, records["report"], into=tmp_path / "report")
    assert "small" in (folder / "report.html").read_text()
    figures = folder / "report-figures"
    methods = (figures / "methods.csv").read_text().splitlines()
    assert methods[-1].startswith(f"mutual feedback,6,{result.num_correct / 6}")
    stages = [line.split(",")[0] for line in (figures / "stages.csv").read_text().splitlines()]
    assert stages[1:3] == ["prepare", "knowledge"]
    assert stages[-1] == "evaluate"
    assert (figures / "loss.svg").read_text().count("<polyline") >= 3

    lines: list[str] = []
    repeated = run_pipeline(config, announce=lines.append)
    assert repeated == {name: records[name] for name in repeated}
    assert sum("already done, skipped" in line for line in lines) == 5


NUM_TOKENS = 32
QUESTIONS = (
    "Tom has 3 apples and finds 4 more apples. How many apples are there now?",
    "A box holds 12 pens. How many pens do 5 boxes hold?",
    "Ann read 20 pages on Monday and twice as many on Tuesday. How many in all?",
)


def prompts_of(student: ModelConfig, role: Role) -> list[list[int]]:
    knowledge = "To find a total, add." if role is Role.DEEP_REASONER else None
    tokenizer = cast("TokenizerLike", load_tokenizer(student))
    return [
        encode_prompt(
            tokenizer, family=student.family, role=role, question=question, knowledge=knowledge
        )
        for question in QUESTIONS
    ]


def by_transformers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """What transformers writes, which is what PEFT's models are driven by."""
    written = []
    for ids in prompts:
        prompt = torch.tensor([ids])
        made = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
            max_new_tokens=NUM_TOKENS, pad_token_id=0,
        )  # fmt: skip
        written.append(made[0, len(ids) :].tolist())
    return written


def by_vllm(
    config: RunConfig, prompts: dict[Role, list[list[int]]], *, adapters: dict[Role, Path]
) -> dict[Role, list[list[int]]]:
    """What vLLM itself writes, each role through its adapter; without adapters by the weights."""

    async def write() -> dict[Role, list[list[int]]]:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        made = VllmEngine(
            student=config.student, sampling=config.sampling, engine=config.engine,
            num_triples=1 if adapters else 0, max_rank=config.training.rank,
        )  # fmt: skip
        params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS)
        loras = {
            role: LoRARequest(str(role), number, str(folder))
            for number, (role, folder) in enumerate(adapters.items(), start=1)
        }

        async def one(role: Role, ids: list[int], name: str) -> list[int]:
            outputs = made.engine.generate(
                {"prompt_token_ids": ids}, params, name, lora_request=loras.get(role)
            )
            return [list(output.outputs[0].token_ids) async for output in outputs][-1]

        try:
            await made.start()
            return {
                role: [await one(role, ids, f"{role}-{n}") for n, ids in enumerate(found)]
                for role, found in prompts.items()
            }
        finally:
            await made.aclose()

    return asyncio.run(write())


def test_peft_vllm_and_merged_weights_write_the_same_tokens(finished, tmp_path):
    config, records = finished
    student, store = config.student, open_store(config.store)
    folders = role_folders(fetch(store, records["triple"], into=tmp_path / "triple"))
    prompts = {role: prompts_of(student, role) for role in Role}
    by_peft = {
        role: by_transformers(
            PeftModel.from_pretrained(load_base(student), str(folder)), prompts[role]
        )
        for role, folder in folders.items()
    }
    of_base = by_transformers(load_base(student), prompts[Role.DEEP_REASONER])
    assert by_peft[Role.DEEP_REASONER] != of_base
    assert all(len(ids) > 3 for written in by_peft.values() for ids in written)
    assert by_vllm(config, prompts, adapters=folders) == by_peft

    for role in Role:
        out = tmp_path / "merged" / role
        command = ["merge", "small", role.short, "-o", str(out), "--store", config.store]
        assert CliRunner().invoke(app, command).exit_code == 0
        merged = student.model_copy(update={"path": str(out)})
        assert by_transformers(load_base(merged), prompts[role]) == by_peft[role]
        # An engine takes seconds to start: one of the three, or all on demand.
        if role is Role.DEEP_REASONER or "LORID_ALL_MERGED" in os.environ:
            alone = config.model_copy(update={"student": merged})
            written = by_vllm(alone, {role: prompts[role]}, adapters={})
            assert written == {role: by_peft[role]}


def test_only_a_missing_role_is_trained_again(trained):
    config, store = trained, open_store(trained.store)
    adapters = {record.name: record for record in list_records(store, kind="adapter")}
    lost = adapters[f"small-{Role.KNOWLEDGE_GENERATOR}"]
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


def test_a_rank_that_does_not_fit_is_found_before_any_worker_starts(trained):
    config = changed(trained, "training.rank=400")
    before = os.listdir(f"{config.store}/train-runs")
    with pytest.raises(
        AdapterMismatch, match=r"training\.rank: 400 exceeds the width 192"
    ) as caught:
        run_pipeline(config, stages=("train",), announce=lambda _: None)
    assert caught.value.exit_code == 2
    assert os.listdir(f"{config.store}/train-runs") == before


def test_fused_training_gives_the_adapters_of_three_workers(trained, tmp_path):
    shutil.copytree(trained.store, tmp_path / "store")
    for record in list_records(open_store(trained.store), kind="adapter"):
        shutil.rmtree(tmp_path / "store" / record.address)
    config = changed(trained, f"store={tmp_path / 'store'}", "training.mode=fused")
    run_pipeline(config, stages=("train",), announce=lambda _: None)

    def weights_in(store: str) -> dict[str, dict[str, torch.Tensor]]:
        opened = open_store(store)
        return {
            record.address: load_file(
                fetch(opened, record, into=Path(tempfile.mkdtemp(dir=tmp_path)))
                / "adapter_model.safetensors"
            )
            for record in list_records(opened, kind="adapter")
        }

    separate, fused = weights_in(trained.store), weights_in(config.store)
    # How adapters are trained is not what they are: the same versions.
    assert set(fused) == set(separate)
    assert len(fused) == 3
    for address, weights in fused.items():
        for name, weight in weights.items():
            assert torch.allclose(weight, separate[address][name], atol=1e-3)


def test_a_port_in_use_is_named_before_anything_starts(trained, tmp_path):
    # A question of its own, so that the evaluation is neither done nor logged already.
    (tmp_path / "own.jsonl").write_text(json.dumps({"question": "2 + 3?", "answer": "#### 5"}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own = f"evaluation.questions={tmp_path / 'own.jsonl'}"
        config = changed(trained, f"serving.port={port}", own)
        with pytest.raises(ServeError, match=rf"{port}: .*; .*serving\.port"):
            run_pipeline(config, stages=("evaluate",), announce=lambda _: None)


def test_another_rule_is_marked_again_without_an_endpoint(trained):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = changed(trained, f"serving.port={port}", "feedback.rule=same-round")
        records = run_pipeline(config, stages=("train", "evaluate"), announce=lambda _: None)
    details = records["evaluate"].details
    assert (details["rule"], details["num_reused"], details["num_problems"]) == ("same-round", 6, 6)


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


@pytest.mark.skipif("LORID_OFFLINE" not in os.environ, reason="another engine: a minute or two")
def test_engines_of_ray_data_write_what_the_endpoint_wrote(finished, tmp_path):
    config, records = finished
    shutil.copytree(config.store, tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "attempts")
    shutil.rmtree(tmp_path / "store" / "evaluation")
    offline = changed(config, f"store={tmp_path / 'store'}", "evaluation.mode=offline")
    again = run_pipeline(offline, stages=("evaluate",), announce=lambda _: None)["evaluate"]
    assert again.details["num_reused"] == 0
    online = fetch(open_store(config.store), records["evaluate"], into=tmp_path / "online")
    files = fetch(open_store(offline.store), again, into=tmp_path / "offline")
    for name in ("attempts.jsonl", "base.jsonl"):
        assert (files / name).read_text() == (online / name).read_text()

"""What training leaves of a role: a folder that PEFT loads, and that says how it came to be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from tiny import tiny_config
from transformers import AutoTokenizer

from lorid.artifacts.hub import export_triple, import_triple
from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store
from lorid.artifacts.training_record import (
    TRAINING_FILE,
    check_records,
    check_trained_for,
    read_training_record,
)
from lorid.artifacts.triples import (
    MANIFEST_FILE,
    Source,
    dump_manifest,
    identify_base,
    make_manifest,
    read_manifest,
    role_folders,
)
from lorid.config import RunConfig
from lorid.demo.generator import generate
from lorid.errors import AdapterMismatch, ArtifactDrifted
from lorid.jsonl import read_jsonl
from lorid.method.roles import Role
from lorid.presets import demo
from lorid.training.adapter_files import Origin, complete_adapter
from lorid.training.adapters import load_base, load_tokenizer, new_adapters, save_adapter
from lorid.training.batches import encode_examples
from lorid.training.loop import ADAPTER_FOLDER, TrainingSession
from lorid.training.track import METRICS_FILE

TOKENIZER_FILES = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]
PEFT_FILES = ["adapter_config.json", "adapter_model.safetensors"]
QUESTION = "Tom has 3 apples and finds 4 more apples. How many are there?"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """The demo's student with a small adapter."""
    return tiny_config(
        demo().student.path, sequences_per_step=8, num_epochs_by_role={Role.DEEP_REASONER: 3}
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> dict[Role, Path]:
    """Folders of all three roles, trained at once for a few steps."""
    tokenizer = load_tokenizer(config.student)
    encoded = {
        role: encode_examples(
            generate(split="train", count=16, seed=1),
            tokenizer=tokenizer,
            family=config.student.family,
            role=role,
            max_tokens=512,
        )
        for role in Role
    }
    examples = {role: found for role, (found, _) in encoded.items()}
    session = TrainingSession(config, examples=examples, device=torch.device("cpu"))
    while session.is_active:
        session.train_step()
    root = tmp_path_factory.mktemp("trained")
    session.save(root)
    sources = {"address": "knowledge/t/1", "fingerprint": "0" * 64}
    origin = Origin(
        config=config,
        base=identify_base(config.student),
        knowledge=Source(**sources),
        data=Source(**sources | {"address": "data/t/1"}),
    )
    folders = role_folders(root / "out")
    for role, folder in folders.items():
        shutil.copytree(root / role / ADAPTER_FOLDER, folder)
        shutil.copy(root / role / METRICS_FILE, folder)
        details = {
            "step": session.tracks[role].step, "num_examples": 16, "num_dropped_too_long": 2,
            "num_truncated": 1, "num_workers": "1", "train_seconds": 1.5,
        }  # fmt: skip
        complete_adapter(folder, origin=origin, role=role, details=details)
    return folders


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_all_that_peft_needs(trained, config):
    for role, folder in trained.items():
        assert names_in(folder) == sorted(
            [*PEFT_FILES, *TOKENIZER_FILES, METRICS_FILE, TRAINING_FILE, "README.md"]
        )
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == config.student.path
        alone = AutoPeftModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        beside = PeftModel.from_pretrained(load_base(config.student), str(folder)).eval()
        ids = AutoTokenizer.from_pretrained(str(folder)).encode(QUESTION)
        assert ids == load_tokenizer(config.student).encode(QUESTION)
        with torch.no_grad():
            one, other = (model(input_ids=torch.tensor([ids])).logits for model in (alone, beside))
            base = load_base(config.student)(input_ids=torch.tensor([ids])).logits
        assert torch.equal(one, other)
        assert not torch.allclose(one, base, atol=1e-3), role


def test_the_record_tells_how_it_was_trained(trained, config):
    for role, folder in trained.items():
        record = read_training_record(folder)
        assert record is not None
        losses = [row["loss"] for _, row in read_jsonl(folder / METRICS_FILE)]
        assert record.role == role
        assert record.result.num_steps == record.result.step == len(losses)
        assert len(losses) == (6 if role is Role.DEEP_REASONER else 2)
        assert (record.result.first_loss, record.result.last_loss) == (losses[0], losses[-1])
        assert record.settings["num_epochs"] == config.training.epochs_of(role)
        assert record.settings["learning_rate"] == config.training.learning_rate
        assert (record.seed, record.base.family) == (config.seed, config.student.family)
        assert (record.result.num_dropped_too_long, record.result.num_truncated) == (2, 1)
        assert record.knowledge.address == "knowledge/t/1"
        assert {"lorid", "torch", "peft"} <= record.packages.keys()
        card = (folder / "README.md").read_text()
        matter = yaml.safe_load(card.split("---")[1])
        assert matter["library_name"] == "peft"
        assert role in matter["tags"]
        for fact in (record.base.identity, f"`{config.student.family}`", f"{losses[-1]:.4f}",
                     "2 dropped, 1 cut", "Tom has 3 apples"):  # fmt: skip
            assert fact in card


def test_a_record_that_does_not_fit_is_refused(trained, config, tmp_path):
    folder = shutil.copytree(trained[Role.DEEP_REASONER], tmp_path / "adapter")
    base = identify_base(config.student)
    assert check_trained_for(folder, base=base, role=Role.DEEP_REASONER) is not None
    with pytest.raises(AdapterMismatch, match=r"family 'tokenizer', not 'llama2'; set student"):
        check_trained_for(folder, base=base.model_copy(update={"family": "llama2"}))
    other = base.model_copy(update={"identity": "folder:0123456789abcdef"})
    with pytest.raises(AdapterMismatch, match=r"trained on .*; name its own base as student.path"):
        check_trained_for(folder, base=other)
    # A hub's model may be what lies in the folder: nothing at hand can tell.
    hub = base.model_copy(update={"identity": "org/base@main", "name": "org/base"})
    assert check_trained_for(folder, base=hub) is not None
    with pytest.raises(AdapterMismatch, match="trained as deep_reasoner, not as intuitive"):
        check_trained_for(folder, base=base, role=Role.INTUITIVE_REASONER)

    shutil.copy(trained[Role.INTUITIVE_REASONER] / PEFT_FILES[1], folder)
    with pytest.raises(ArtifactDrifted, match="other weights"):
        read_training_record(folder)
    (folder / TRAINING_FILE).write_text("{}")
    with pytest.raises(ArtifactDrifted, match=r"damaged.*delete it if"):
        read_training_record(folder)
    (folder / TRAINING_FILE).unlink()
    assert check_trained_for(folder, base=other) is None


def test_of_a_hub_s_base_the_very_commit_is_named(config, tmp_path, monkeypatch):
    commit = "4f6b9e2" + "0" * 33
    cache = tmp_path / "models--org--base"
    shutil.copytree(config.student.path, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    student = config.student.model_copy(update={"path": "org/base"})
    role = Role.DEEP_REASONER
    model = new_adapters(load_base(student), config.training, roles=[role], seed=1)
    save_adapter(model, tmp_path / "made", role=role, student=student)
    settings = json.loads((tmp_path / "made" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "org/base"
    assert settings["revision"] == commit


def test_a_triple_takes_the_files_out_once_and_comes_back_without_them(trained, config, tmp_path):
    made = trained[Role.DEEP_REASONER].parents[1]
    manifest = make_manifest(config.endpoint(), folders=trained, addresses={})
    (made / MANIFEST_FILE).write_bytes(dump_manifest(manifest))
    store = open_store(str(tmp_path / "store"))
    record = publish(store, made, kind="triple", name="t", inputs={})
    # Contents lie under their hash: the three tokenizers are one.
    assert len({entry.sha256 for entry in record.files if "tokenizer" in entry.path}) == 2
    assert check_records(manifest, trained).startswith("3 of 3")

    export_triple(store, record, into=tmp_path / "out", base_name="org/base", license_id="mit")
    for role in Role:
        folder = tmp_path / "out" / role
        assert names_in(folder) == sorted(
            [*PEFT_FILES, *TOKENIZER_FILES, TRAINING_FILE, "README.md"]
        )
        told = read_training_record(folder)
        assert told is not None
        assert told.base.name == "org/base"
        text = "".join(
            path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".json")
        )
        assert config.student.path not in text
        assert "## Training" in (folder / "README.md").read_text()

    again = import_triple(store, tmp_path / "out", name="again", base=config.student)
    assert read_manifest(store, again).base == manifest.base
    # What comes in is not trusted: of an adapter, its weights and its config alone.
    assert {Path(entry.path).name for entry in again.files} == {*PEFT_FILES, MANIFEST_FILE}

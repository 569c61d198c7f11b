"""The manifest says what the files hold; verification finds what does not fit."""

import json
import shutil

import pytest
from triple_files import publish_triple, settings_on, write_adapter, write_base

from lorid.artifacts.aliases import promote
from lorid.artifacts.records import fetch, publish
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import (
    MANIFEST_FILE,
    dump_manifest,
    evaluation_of,
    identify_base,
    parse_manifest,
    read_manifest,
    resolve_triple,
    role_folders,
    verify_folders,
)
from lorid.config import ModelConfig
from lorid.errors import AdapterMismatch, ArtifactDrifted, ArtifactIncomplete, DataError
from lorid.method.grader import GRADER_VERSION
from lorid.method.roles import Role

COUNTS = {"num_problems": 4, "num_correct": 3, "num_errors": 0, "accuracy": 0.75}


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def record(store, base, tmp_path):
    return publish_triple(store, tmp_path / "made", base=base)


def test_the_manifest_reads_back_equal_and_describes_the_files(store, record, base, tmp_path):
    manifest = read_manifest(store, record)
    assert parse_manifest(dump_manifest(manifest), source="x") == manifest
    assert {entry.rank for entry in manifest.adapters.values()} == {2}
    assert manifest.adapters[Role.DEEP_REASONER].target_modules == ("q_proj", "v_proj")
    assert manifest.base == identify_base(settings_on(base).student)
    assert manifest.grader_version == GRADER_VERSION
    folders = role_folders(fetch(store, record, into=tmp_path / "out"))
    assert dict(verify_folders(manifest, folders))["shapes"] == "fit the base"
    assert manifest.endpoint(store=store.uri).sampling == manifest.sampling


def test_a_reference_is_a_name_a_version_or_an_alias(store, record, base, tmp_path):
    newer = publish_triple(store, tmp_path / "newer", base=base, seed=1)
    promote(store, "production", record.address)
    version = record.version
    for reference in ("@production", f"demo/{version}", f"triple/demo/{version}"):
        assert resolve_triple(store, reference) == record
    assert resolve_triple(store, "demo").version in (newer.version, version)
    with pytest.raises(ArtifactIncomplete, match="no triple named 'other'"):
        resolve_triple(store, "other")
    with pytest.raises(ArtifactIncomplete, match="no triple/demo/000"):
        resolve_triple(store, "demo/000")
    with pytest.raises(ArtifactIncomplete, match="promote NAME --to staging"):
        resolve_triple(store, "@staging")
    for malformed in ("../x", "a/b/c", "", "Demo"):
        with pytest.raises(DataError):
            resolve_triple(store, malformed)


def test_an_evaluation_is_found_by_its_parent(store, record, tmp_path):
    assert evaluation_of(store, record) is None
    folder = tmp_path / "evaluation"
    folder.mkdir()
    details = {**COUNTS, "mean_rounds": 1.5, "grader_version": 1}
    for number, parent in enumerate(("triple/demo/other", record.address)):
        publish(
            store, folder, kind="evaluation", name="demo", inputs={"n": number},
            parents=(parent,), details={**details, "num_correct": number},
        )  # fmt: skip
    found = evaluation_of(store, record)
    assert (found.num_correct, found.accuracy, found.mean_rounds) == (1, 0.75, 1.5)
    # One on other questions is not how the triple did on its run's test split.
    publish(
        store, folder, kind="evaluation", name="demo", inputs={"evaluation.questions": "own"},
        parents=(record.address,), details={**details, "num_correct": 4},
    )  # fmt: skip
    assert evaluation_of(store, record) == found


def test_a_triple_from_before_manifests_is_one_line_with_a_fix(store, tmp_path):
    folder = tmp_path / "old"
    write_adapter(folder / "adapters" / "deep_reasoner")
    record = publish(store, folder, kind="triple", name="old", inputs={})
    with pytest.raises(ArtifactIncomplete, match=r"train_adapters\.py") as caught:
        read_manifest(store, record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda manifest: manifest["adapters"].pop("deep_reasoner"),
        lambda manifest: manifest["adapters"].update({"../../x": {}}),
        lambda manifest: manifest.update(format=2),
        lambda manifest: manifest.update(name="../x"),
        lambda manifest: manifest.update(folder="/etc"),
        lambda manifest: manifest["base"].update(family="gpt9"),
        lambda manifest: manifest["adapters"]["deep_reasoner"].update(weights_sha256="x"),
    ],
)
def test_a_damaged_manifest_is_refused(store, record, spoil):
    manifest = json.loads(dump_manifest(read_manifest(store, record)))
    spoil(manifest)
    with pytest.raises(ArtifactDrifted, match=MANIFEST_FILE):
        parse_manifest(json.dumps(manifest).encode(), source="x")


def test_a_manifest_of_other_weights_is_refused(store, record, base, tmp_path):
    folder = fetch(store, record, into=tmp_path / "out")
    write_adapter(role_folders(folder)[Role.DEEP_REASONER], seed=99)
    mixed = publish(store, folder, kind="triple", name="mixed", inputs={})
    with pytest.raises(ArtifactDrifted, match="different weights of deep_reasoner"):
        read_manifest(store, mixed)


def test_what_does_not_fit_is_found(store, record, base, tmp_path):
    manifest = read_manifest(store, record)
    folders = role_folders(fetch(store, record, into=tmp_path / "out"))
    deeper = ModelConfig(path=str(write_base(tmp_path / "deeper", num_hidden_layers=1)))
    with pytest.raises(AdapterMismatch, match="another base"):
        verify_folders(manifest, folders, base=deeper)
    like = ModelConfig(path=str(shutil.copytree(base, tmp_path / "like")))
    assert verify_folders(manifest, folders, base=like)
    (tmp_path / "like" / "tokenizer.json").write_text("{}")
    with pytest.raises(AdapterMismatch, match="is not the base of this triple"):
        verify_folders(manifest, folders, base=like)
    write_adapter(folders[Role.DEEP_REASONER], rank=4)
    with pytest.raises(ArtifactDrifted, match="deep_reasoner"):
        verify_folders(manifest, folders)


def test_adapters_that_name_different_bases_are_refused(store, record, base, tmp_path):
    manifest = read_manifest(store, record)
    folders = role_folders(fetch(store, record, into=tmp_path / "out"))
    config = folders[Role.DEEP_REASONER] / "adapter_config.json"
    text = json.loads(config.read_text()) | {"base_model_name_or_path": "some/other"}
    config.write_text(json.dumps(text))
    with pytest.raises(AdapterMismatch, match="name different bases"):
        verify_folders(manifest, folders)


def test_without_the_base_at_hand_the_adapters_must_agree(store, record, tmp_path):
    manifest = read_manifest(store, record)
    folders = role_folders(fetch(store, record, into=tmp_path / "out"))
    away = ModelConfig(path="org/none-of-that-name")
    assert "not at hand" in dict(verify_folders(manifest, folders, base=away))["shapes"]


def test_large_weights_are_known_by_their_content_though_not_read_each_time(tmp_path, monkeypatch):
    base = write_base(tmp_path / "base")
    weights = base / "model.safetensors"
    weights.write_bytes(b"one")
    model = ModelConfig(path=str(base))
    read_each_time = identify_base(model).identity
    monkeypatch.setattr("lorid.artifacts.hashes.LARGE_BYTES", 1)
    assert [identify_base(model).identity for _ in range(2)] == [read_each_time] * 2
    weights.write_bytes(b"other")
    assert identify_base(model).identity != read_each_time

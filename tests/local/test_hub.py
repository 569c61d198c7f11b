"""A triple goes out as a folder that needs nothing of ours, and only sound folders come in."""

import json
import os
import pickle
import shutil

import pytest
import yaml
from triple_files import publish_triple, settings_on, write_adapter, write_base

from lorid.artifacts.cards import adapter_card
from lorid.artifacts.hub import MAX_FILES, copy_regular, export_triple, import_triple
from lorid.artifacts.records import fetch
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import MANIFEST_FILE, parse_manifest, read_manifest, role_folders
from lorid.config import ModelConfig
from lorid.errors import AdapterMismatch, ArtifactError, DataError, LoridError
from lorid.method.roles import Role
from lorid.method.templates import FAMILIES

DEEP = "deep_reasoner"
WEIGHTS = f"{DEEP}/adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, its triple, that triple's base, and the folder that it was exported to."""
    root = tmp_path_factory.mktemp("hub")
    store, base = open_store(str(root / "store")), write_base(root / "base")
    record = publish_triple(store, root / "made", base=base, temperature=0.7)
    export_triple(store, record, into=root / "out", license_id="apache-2.0")
    return store, record, base, root / "out"


@pytest.fixture
def store(made):
    return made[0]


@pytest.fixture
def record(made):
    return made[1]


@pytest.fixture
def base(made):
    return made[2]


@pytest.fixture
def exported(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made[3], tmp_path / "out")


def test_an_exported_folder_comes_back_the_same(store, record, exported):
    again = import_triple(store, exported, name="again")
    old, new = read_manifest(store, record), read_manifest(store, again)
    assert new == old.model_copy(update={"name": "again"})
    assert import_triple(store, exported, name="again") == again


def test_export_writes_three_adapters_and_cards_with_the_facts(store, record, exported, base):
    manifest = read_manifest(store, record)
    for role in Role:
        names = sorted(path.name for path in (exported / role).iterdir())
        assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
        config = json.loads((exported / role / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(base)
        assert config["lora_alpha"] == 4
        card = (exported / role / "README.md").read_text()
        matter = yaml.safe_load(card.split("---")[1])
        assert (matter["license"], matter["library_name"]) == ("apache-2.0", "peft")
        for fact in (str(role), manifest.base.identity, "temperature 0.7", "Tom has 3 apples"):
            assert fact in card
    assert "deep_reasoner" in (exported / "README.md").read_text()
    assert parse_manifest((exported / MANIFEST_FILE).read_bytes(), source="x") == manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_the_card_shows_the_prompt_of_every_family(store, record, family):
    manifest = read_manifest(store, record)
    base = manifest.base.model_copy(update={"family": family, "name": "org/base"})
    card = adapter_card(
        manifest.model_copy(update={"base": base}), Role.DEEP_REASONER, license_id="mit"
    )
    assert "TURN" in card or "chat template" in card
    assert "base_model: org/base" in card


def test_a_base_of_the_hub_is_named_when_asked(store, record, tmp_path, base):
    export_triple(store, record, into=tmp_path / "out", base_name="org/base")
    config = json.loads((tmp_path / "out" / DEEP / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base"
    local = ModelConfig(path=str(base), dtype="float32")
    again = import_triple(store, tmp_path / "out", name="again", base=local)
    assert read_manifest(store, again).base == read_manifest(store, record).base
    away = import_triple(store, tmp_path / "out", name="away")
    assert read_manifest(store, away).base.name == "org/base"


def test_nothing_is_written_over(store, record, exported):
    with pytest.raises(DataError, match="not an empty folder"):
        export_triple(store, record, into=exported)


def three(tmp_path, **config):
    return {
        role: write_adapter(tmp_path / f"GSM8K-X-{role.short}", seed=number, **config)
        for number, role in enumerate(Role)
    }


def test_three_adapters_and_their_settings_make_a_triple(store, base, tmp_path):
    folders = three(tmp_path, base_model_name_or_path=str(base), auto_mapping={"x": "os.system"})
    record = import_triple(store, folders, name="mine", settings=settings_on(base))
    manifest = read_manifest(store, record)
    assert (manifest.name, manifest.base.name) == ("mine", str(base))
    assert manifest.adapters[Role.DEEP_REASONER].address is None
    out = role_folders(fetch(store, record, into=tmp_path / "out"))
    # Only what was checked is written anew.
    assert "auto_mapping" not in (out[Role.DEEP_REASONER] / "adapter_config.json").read_text()


def test_three_adapters_need_settings_and_one_base(store, base, tmp_path):
    folders = three(tmp_path, base_model_name_or_path="/not/here")
    with pytest.raises(DataError, match="--preset"):
        import_triple(store, folders, name="mine")
    with pytest.raises(DataError, match="--base"):
        import_triple(store, folders, name="mine", settings=settings_on(base))
    write_adapter(folders[Role.DEEP_REASONER], base_model_name_or_path="some/other")
    with pytest.raises(AdapterMismatch, match="--base"):
        import_triple(store, folders, name="mine", settings=settings_on(base))
    model = settings_on(base).student
    assert import_triple(store, folders, name="mine", settings=settings_on(base), base=model)
    other = ModelConfig(path=str(write_base(tmp_path / "other", hidden_size=16)))
    with pytest.raises(AdapterMismatch, match="another base"):
        import_triple(store, folders, name="mine", settings=settings_on(base), base=other)


def link_to_secret(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/hostname")


def link_folder(folder):
    shutil.move(folder / DEEP, folder.parent / "elsewhere")
    (folder / DEEP).symlink_to(folder.parent / "elsewhere")


def as_pickle(folder):
    (folder / WEIGHTS).write_bytes(pickle.dumps({"a": 1}))


def edited(**changes):
    def edit(folder):
        path = folder / DEEP / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


DANGERS = {
    "a link in the place of weights": (link_to_secret, "link"),
    "a link in the place of a folder": (link_folder, "link"),
    "a link that nobody asked for": (lambda f: (f / "x").symlink_to("/etc"), "link"),
    "pickled by name": (lambda f: (f / DEEP / "adapter_model.bin").write_bytes(b"x"), "pickled"),
    "pickled by its first bytes": (as_pickle, "pickled"),
    "a pickle beside": (lambda f: (f / "notes").write_bytes(pickle.dumps(1, 4)), "pickled"),
    "an archive": (lambda f: (f / "notes").write_bytes(b"PK\x03\x04"), "pickled"),
    "a pipe": (lambda f: os.mkfifo(f / "pipe"), "plain file"),
    "a folder in the place of weights": (
        lambda f: [(f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()], "plain file"),
    "a folder in the place of the manifest": (
        lambda f: [(f / "triple.json").unlink(), (f / "triple.json").mkdir()], "plain file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "adapter_model.safetensors"),
    "weights of another length": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-4]), "damaged"),
    "a header that is too long": (
        lambda f: (f / WEIGHTS).write_bytes((2**40).to_bytes(8, "little") + b"{}"), "damaged"),
    "weights of another adapter": (lambda f: write_adapter(f / DEEP, seed=9), "triple.json"),
    "a large config": (
        lambda f: (f / DEEP / "adapter_config.json").write_bytes(b" " * 2**21), "larger than"),
    "a config that is no JSON": (
        lambda f: (f / DEEP / "adapter_config.json").write_text("["), "adapter_config"),
    "a rank out of bounds": (edited(r=10**9), "r: "),
    "an alpha out of bounds": (edited(lora_alpha=1e300), "lora_alpha"),
    "a target that is a path": (edited(target_modules=["../x"]), "target_modules"),
    "another base": (edited(base_model_name_or_path="some/other"), "different bases"),
    "a manifest with a path": (
        lambda f: (f / "triple.json").write_text(
            json.dumps(json.loads((f / "triple.json").read_text()) | {"folder": "/"})), "folder"),
    "too many files": (
        lambda f: [(f / f"{n}").touch() for n in range(MAX_FILES + 1)], "more than"),
}  # fmt: skip


@pytest.mark.parametrize("danger", DANGERS)
def test_a_folder_that_is_not_sound_is_refused_and_nothing_is_stored(store, exported, danger):
    spoil, said = DANGERS[danger]
    spoil(exported)
    before = store.list("triple/")
    with pytest.raises(LoridError, match=said) as caught:
        import_triple(store, exported, name="bad")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert "lorid-import-" not in str(caught.value)
    assert store.list("triple/") == before


@pytest.mark.parametrize("name", ["../x", "", "a/b", "A b"])
def test_a_malformed_name_is_refused(store, exported, name):
    with pytest.raises(DataError, match="name"):
        import_triple(store, exported, name=name)


def test_a_folder_that_is_a_link_or_missing_is_refused(store, exported, tmp_path):
    (tmp_path / "link").symlink_to(exported)
    with pytest.raises(ArtifactError, match="link"):
        import_triple(store, tmp_path / "link", name="x")
    with pytest.raises(DataError, match="not a folder"):
        import_triple(store, tmp_path / "none", name="x")


def test_a_copy_follows_no_link_and_stops_at_its_bound(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 10)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    copy_regular(tmp_path / "file", tmp_path / "copy", 10)
    assert (tmp_path / "copy").read_bytes() == b"x" * 10
    with pytest.raises(ArtifactError, match="larger than 9 bytes"):
        copy_regular(tmp_path / "file", tmp_path / "copy", 9)
    with pytest.raises(ArtifactError, match="links are not followed"):
        copy_regular(tmp_path / "link", tmp_path / "copy", 10)
    with pytest.raises(ArtifactError, match="not a plain file"):
        copy_regular(tmp_path, tmp_path / "copy", 10)

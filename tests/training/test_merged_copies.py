"""Merged weights on a node: from the store where they are published, merged there otherwise."""

import json

import pytest
from safetensors.numpy import load_file
from small import random_triple

from lorid.artifacts.records import fetch
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import role_folders
from lorid.cli.merging import app
from lorid.distributed.merged import merged_copy
from lorid.method.roles import Role
from lorid.presets import demo

WEIGHTS = "model.safetensors"


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node without copies."""
    (tmp_path / "node").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    return tmp_path / "node"


def test_published_weights_are_what_a_node_would_merge(tmp_path, node, capsys):
    store = open_store(str(tmp_path / "store"))
    triple = random_triple(store, tmp_path / "triple", seed=1)
    fetch(store, triple, into=tmp_path / "fetched")
    adapters = role_folders(tmp_path / "fetched")
    config = demo().endpoint().model_copy(update={"store": store.uri})
    made = merged_copy(config, adapter=adapters[Role.DEEP_REASONER], role=Role.DEEP_REASONER)
    command = ["merge", "demo", "DR", "-o", str(tmp_path / "out"), "--store", store.uri]
    capsys.readouterr()
    app([*command, "--publish", "--json"], standalone_mode=False)
    stored = json.loads(capsys.readouterr().out)["stored"]
    came = merged_copy(config, adapter=adapters[Role.DEEP_REASONER], role=Role.DEEP_REASONER)
    assert came.folder.parent != made.folder.parent
    assert came.folder.name == stored.replace("/", "-")
    mine, theirs = (load_file(copy.folder / WEIGHTS) for copy in (made, came))
    assert mine.keys() == theirs.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine)
    # Another role's are not taken for it.
    other = merged_copy(
        config, adapter=adapters[Role.INTUITIVE_REASONER], role=Role.INTUITIVE_REASONER
    )
    assert other.folder.parent == made.folder.parent
    assert (other.folder / WEIGHTS).read_bytes() != (came.folder / WEIGHTS).read_bytes()

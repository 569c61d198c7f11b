"""`lorid merge --publish`, and the layout `merged` that serves what it has put into the store."""

import json

from small import random_triple
from typer.testing import CliRunner

from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest, role_folders
from lorid.cli.app import app
from lorid.distributed.merged import merged_copy
from lorid.method.roles import Role

WEIGHTS = "model.safetensors"


def test_an_engine_takes_published_weights_and_merges_only_what_is_not_there(tmp_path, monkeypatch):
    # The node's copies go to this test's folder.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = open_store(str(tmp_path / "store"))
    record = random_triple(store, tmp_path / "triple", seed=1)
    config = read_manifest(store, record).endpoint(store=store.uri)
    adapters = role_folders(tmp_path / "triple")
    out = tmp_path / "merged"
    arguments = ["merge", "demo", "DR", "-o", str(out), "--store", store.uri, "--publish"]
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["stored"].startswith("merged/demo/")
    merged = []

    def merge(student, *, adapter, out):
        merged.append(adapter)
        out.mkdir()

    monkeypatch.setattr("lorid.training.merging.merge_adapter", merge)
    served = {
        role: merged_copy(config, adapter=adapters[role], role=role)
        for role in (Role.DEEP_REASONER, Role.KNOWLEDGE_GENERATOR)
    }
    assert merged == [adapters[Role.KNOWLEDGE_GENERATOR]]
    weights = served[Role.DEEP_REASONER].folder / WEIGHTS
    assert weights.read_bytes() == (out / WEIGHTS).read_bytes()

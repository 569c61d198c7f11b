"""`lorid triple` as it is typed: what it prints, and exit codes."""

import json

import pytest
from triple_files import publish_triple, write_adapter, write_base

from lorid.artifacts.store import open_store
from lorid.method.roles import Role


@pytest.fixture
def place(tmp_path):
    """A store with two triples of one run: its option, and their versions."""
    store = open_store(str(tmp_path / "store"))
    base = write_base(tmp_path / "base")
    made = [publish_triple(store, tmp_path / f"made{n}", base=base, seed=n) for n in range(2)]
    return ["--store", store.uri], [record.version for record in made]


@pytest.fixture
def triple(lorid, place):
    """Runs `lorid triple ...` on the store; returns what it printed, as JSON, or its error line."""

    def run(*arguments, code=0):
        got, out, err = lorid("triple", *arguments, "--json", *place[0])
        assert got == code, err
        if code:
            assert len(err.strip().splitlines()) == 1
            assert err.startswith("error: ")
            return err
        return json.loads(out)

    return run


def test_promote_roll_back_and_history(triple, place):
    _, (first, second) = place
    assert "no alias" in triple("history", "production", code=2)
    assert triple("promote", f"demo/{first}", "--to", "production")["number"] == 1
    refused = triple("promote", f"demo/{second}", "--to", "production", "--expect", "0", code=2)
    assert first in refused
    triple("promote", f"demo/{second}", "--to", "production", "--expect", first)
    listed = {row["triple"]: row["aliases"] for row in triple("list")}
    assert listed == {f"triple/demo/{first}": [], f"triple/demo/{second}": ["production"]}
    assert triple("rollback", "production")["target"] == f"triple/demo/{first}"
    assert "nothing to roll back to" in triple("rollback", "production", code=2)
    assert [one["action"] for one in triple("history", "production")] == [
        "promote", "promote", "rollback",
    ]  # fmt: skip
    assert triple("show", "@production")["triple"] == f"triple/demo/{first}"


def test_verify_says_what_is_wrong_and_exits_2(lorid, place, tmp_path):
    option, (first, _) = place
    sound = lorid("triple", "verify", f"demo/{first}", "--json", *option)
    assert (sound[0], json.loads(sound[1])["ok"]) == (0, True)
    other = write_base(tmp_path / "other", hidden_size=16)
    code, out, err = lorid(
        "triple", "verify", f"demo/{first}", "--base", str(other), "--json", *option
    )
    assert (code, json.loads(out)["ok"]) == (2, False)
    assert "another base" in err
    store = open_store(option[1])
    blob = next(key for key in store.list("blobs/") if len(store.read(key)) > 600)
    store.write(blob, b"changed")
    codes = [lorid("triple", "verify", f"demo/{one}", *option)[0] for one in place[1]]
    assert 2 in codes


def test_what_is_exported_can_be_imported(triple, place, tmp_path):
    out = str(tmp_path / "out")
    assert triple("export", f"demo/{place[1][0]}", "-o", out)["folder"] == out
    assert "not an empty folder" in triple("export", "demo", "-o", out, code=2)
    address = triple("import", out, "--name", "again")["triple"]
    assert triple("show", "again")["triple"] == address
    assert triple("verify", "again")["ok"] is True
    assert "neither a folder" in triple("import", out, "--name", "x", "--base", "/no", code=2)


def test_three_adapters_are_known_by_their_names(triple, tmp_path):
    base = str(tmp_path / "base")
    folders = [
        str(write_adapter(tmp_path / f"GSM8K-{role.short}", seed=n, base_model_name_or_path=base))
        for n, role in enumerate(Role)
    ]
    options = ("--name", "three", "--preset", "demo")
    assert triple("import", *folders, *options)["triple"].startswith("triple/three/")
    assert triple("verify", "three")["ok"] is True
    named = [f"{role.short}={folder}" for role, folder in zip(Role, folders, strict=True)]
    assert triple("import", *named, *options)["triple"].startswith("triple/three/")
    assert "--preset" in triple("import", *folders, "--name", "three", code=2)
    assert "DR" in triple("import", *folders[:2], *options, code=2)
    assert "which role" in triple("import", *folders[:2], str(tmp_path), *options, code=2)

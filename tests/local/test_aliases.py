"""Aliases move, move back, and tell everything that happened to them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.artifacts.aliases import (
    AliasEntry,
    alias_names,
    current_entry,
    history,
    promote,
    rollback,
    standing_targets,
)
from lorid.artifacts.store import open_store
from lorid.errors import ArtifactDrifted, ArtifactIncomplete, DataError

A, B, C, D = (f"triple/demo/{letter * 12}" for letter in "abcd")


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def targets(store):
    return [entry.target for entry in history(store, "production")]


def test_promotions_and_rollbacks_are_numbered_and_walk_back_one_at_a_time(store):
    for target in (A, B, C):
        assert promote(store, "production", target).target == target
    assert rollback(store, "production").target == B
    assert rollback(store, "production").target == A
    with pytest.raises(ArtifactIncomplete, match="nothing to roll back to"):
        rollback(store, "production")
    promote(store, "production", D)
    assert rollback(store, "production").target == A
    entries = history(store, "production")
    assert [entry.number for entry in entries] == list(range(1, 8))
    assert [entry.target for entry in entries] == [A, B, C, B, A, D, A]
    assert [entry.previous for entry in entries] == [None, *targets(store)[:-1]]
    assert current_entry(store, "production") == entries[-1]
    assert alias_names(store) == ["production"]


def test_promoting_what_is_there_is_an_entry_that_a_rollback_passes_over(store):
    for target in (A, B, B):
        promote(store, "production", target)
    assert len(history(store, "production")) == 3
    assert rollback(store, "production").target == A


def test_expecting_another_triple_is_refused_and_names_what_is_there(store):
    promote(store, "production", A, expect="none")
    with pytest.raises(ArtifactDrifted, match=f"{A} .number 1, promote by "):
        promote(store, "production", B, expect="none")
    with pytest.raises(ArtifactDrifted, match=A):
        rollback(store, "production", expect="b" * 12)
    for expected in (A, A.removeprefix("triple/"), "a" * 12):
        promote(store, "production", A, expect=expected)
    assert promote(store, "production", B, expect="a" * 12).previous == A


class Overtaken:
    """A store where somebody else promotes C just before this writer's entry; an I/O fake."""

    def __init__(self, store, *, times):
        self.store, self.times, self.uri = store, times, store.uri

    def read(self, key, *, into=None):
        return self.store.read(key, into=into)

    def list(self, prefix):
        return self.store.list(prefix)

    def write(self, key, source, *, if_absent=False):
        if self.times:
            self.times -= 1
            promote(self.store, "production", C)
        return self.store.write(key, source, if_absent=if_absent)


def test_a_lost_race_is_announced_and_tried_again_unless_something_was_expected(store):
    promote(store, "production", A)
    said = []
    entry = promote(Overtaken(store, times=2), "production", B, announce=said.append)
    assert (entry.number, entry.previous, len(said)) == (4, C, 2)
    assert all(C in line for line in said)
    with pytest.raises(ArtifactDrifted, match=f"meanwhile.*{C}"):
        promote(Overtaken(store, times=1), "production", A, expect=B)
    with pytest.raises(ArtifactDrifted, match=f"meanwhile.*{C}"):
        rollback(Overtaken(store, times=1), "production")
    assert targets(store) == [A, C, C, B, C, C]


@pytest.mark.parametrize("alias", ["", "..", "a/b", "A", "x" * 80, "a@b"])
def test_a_malformed_alias_is_refused(store, alias):
    for act in (lambda: promote(store, alias, A), lambda: current_entry(store, alias)):
        with pytest.raises(DataError, match="alias"):
            act()


@pytest.mark.parametrize("text", ["{", "{}", json.dumps({"alias": "other"})])
def test_a_damaged_entry_is_named(store, text):
    promote(store, "production", A)
    store.write("aliases/production/00000002.json", text.encode())
    with pytest.raises(ArtifactDrifted, match="00000002"):
        current_entry(store, "production")


@given(st.lists(st.sampled_from([A, B, C, None]), max_size=30))
def test_what_stands_is_what_a_stack_of_promotions_holds(steps):
    """None rolls back. The model is a list that promotions push and rollbacks pop."""
    entries, model = [], []
    for step in steps:
        if step is None:
            if len(model) < 2:
                continue
            model.pop()
        elif not model or model[-1] != step:
            model.append(step)
        entries.append(
            AliasEntry(
                alias="x", number=len(entries) + 1, action="promote" if step else "rollback",
                target=model[-1], previous=None, at="", by="",
            )
        )  # fmt: skip
        assert standing_targets(entries) == model

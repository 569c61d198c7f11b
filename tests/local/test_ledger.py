"""The ledger: what is added is durable, what is torn loses nothing else."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorid.artifacts.gc import find_leftovers
from lorid.artifacts.local import LocalStore
from lorid.artifacts.shards import UploadedKeys
from lorid.errors import ArtifactError
from lorid.teacher.base import Reply, TeacherRequest, Usage
from lorid.teacher.ledger import Ledger, Stored, folder_of, merge_ledger


def stored(number, *, text="{}", cost=0.5):
    reply = Reply(text=text, finish_reason="stop", usage=Usage(output_tokens=3), model="m")
    return Stored(key=f"k{number}", ask=1, settings={"model": "m"}, reply=reply, cost=cost)


def keys(ledger):
    return set(ledger.lines)


async def test_what_was_added_is_there_in_the_next_process(tmp_path):
    store = LocalStore(tmp_path)
    ledger = Ledger.opened(store, name="run")
    await asyncio.gather(*(ledger.add([stored(n), stored(n + 100)]) for n in range(20)))
    again = Ledger.opened(store, name="run")
    assert keys(again) == keys(ledger)
    assert len(keys(again)) == 40
    assert again.cost == pytest.approx(20)
    assert again.find("k7") == stored(7)
    assert again.find("k99") is None
    assert keys(Ledger.opened(store, name="other")) == set()


async def test_the_same_response_twice_is_kept_and_paid_once(tmp_path):
    ledger = Ledger.opened(LocalStore(tmp_path), name="run")
    await ledger.add([stored(1)])
    await ledger.add([stored(1)])
    assert ledger.cost == 0.5
    assert Ledger.opened(LocalStore(tmp_path), name="run").cost == 0.5


@settings(max_examples=30)
@given(cut=st.integers(min_value=1, max_value=400), junk=st.binary(max_size=30))
def test_a_shard_cut_anywhere_loses_only_what_was_cut(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("ledger")
    store = LocalStore(folder)

    async def fill(start):
        ledger = Ledger.opened(store, name="run")
        for number in range(start, start + 3):
            await ledger.add([stored(number)])

    asyncio.run(fill(0))
    (shard,) = (folder / folder_of("run")).iterdir()
    content = shard.read_bytes()
    shard.write_bytes(content[: max(0, len(content) - cut)] + junk.replace(b"\n", b""))
    num_left = content[: max(0, len(content) - cut)].count(b"\n{")
    asyncio.run(fill(10))  # another process writes after the crash
    found = keys(Ledger.opened(store, name="run"))
    assert {"k10", "k11", "k12"} <= found
    assert len(found) >= 3 + max(0, num_left - 1)


async def test_after_a_write_that_failed_halfway_the_same_file_goes_on(tmp_path, monkeypatch):
    """A disk that is full leaves half a line; the next lines are not joined to it."""
    monkeypatch.setattr("lorid.teacher.ledger.RETRY_S", 0.01)
    store = LocalStore(tmp_path)
    ledger = Ledger.opened(store, name="run")
    append, failures = store.append, iter([True, True, False, False])

    def half(key, content):
        if next(failures):
            append(key, content[: len(content) // 2])
            raise ArtifactError("disk full")
        append(key, content)

    monkeypatch.setattr(store, "append", half)
    await ledger.add([stored(1)])
    await ledger.add([stored(2)])
    again = Ledger.opened(LocalStore(tmp_path), name="run")
    assert keys(again) == {"k1", "k2"}
    assert again.num_torn == 2


async def test_a_store_that_stays_lost_ends_in_its_error_and_nothing_counts_as_stored(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LORID_STORE_WAIT_S", "0")
    store = LocalStore(tmp_path)
    ledger = Ledger.opened(store, name="run")
    (tmp_path / "ledgers").write_text("a file where the folder should be")
    with pytest.raises(ArtifactError, match="a file is where a folder should be"):
        await ledger.add([stored(1)])
    assert ledger.find("k1") is None


async def test_where_nothing_can_be_appended_groups_become_new_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(UploadedKeys, "delay_s", 0.05)
    store = LocalStore(tmp_path)
    ledger = Ledger(shard=UploadedKeys(store, f"{folder_of('run')}shard.jsonl"))
    await asyncio.gather(*(ledger.add([stored(n)]) for n in range(30)))
    await ledger.add([stored(30)])
    assert len(store.list(folder_of("run"))) == 2
    assert len(keys(Ledger.opened(store, name="run"))) == 31


@settings(max_examples=50)
@given(text=st.text())
def test_any_text_comes_back_as_it_was(text):
    once = stored(1, text=text)
    line = once.to_line()
    assert b"\n" not in line
    assert Stored.from_line(line) == once


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b'{"key": "a"}', b"\xff", b"3"])
def test_other_lines_are_no_responses(line):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own, and ours
        Stored.from_line(line)


async def test_the_sweep_of_a_store_leaves_ledgers(tmp_path):
    store = LocalStore(tmp_path)
    await Ledger.opened(store, name="run").add([stored(1)])
    assert find_leftovers(store, grace_s=0) == []


def test_a_key_holds_everything_that_the_answer_depends_on():
    request = TeacherRequest(prompt="p", temperature=0.2, seed=1)
    key = request.key({"model": "a"})
    assert key == TeacherRequest(prompt="p", temperature=0.2, seed=1).key({"model": "a"})
    others = [
        TeacherRequest(prompt="q", temperature=0.2, seed=1).key({"model": "a"}),
        TeacherRequest(prompt="p", temperature=0.3, seed=1).key({"model": "a"}),
        TeacherRequest(prompt="p", temperature=0.2, seed=2).key({"model": "a"}),
        TeacherRequest(prompt="p", temperature=0.2, seed=1, ask=2).key({"model": "a"}),
        request.key({"model": "b"}),
    ]
    assert len({key, *others}) == 6


async def test_many_shards_are_made_one_without_a_loss(tmp_path, monkeypatch):
    monkeypatch.setattr("lorid.artifacts.shards.MERGE_ABOVE", 3)
    store = LocalStore(tmp_path)
    for number in range(5):
        await Ledger.opened(store, name="run").add([stored(number)])
    merge_ledger(store, "run")
    merged = Ledger.opened(store, name="run")
    assert len(store.list(folder_of("run"))) == 1
    assert keys(merged) == {f"k{number}" for number in range(5)}
    await merged.add([stored(5)])
    again = Ledger.opened(store, name="run")
    assert len(keys(again)) == 6
    assert again.cost == pytest.approx(3)


class Elsewhere:
    """A store that is no folder: nothing can be appended, and shards are fetched."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)


@pytest.mark.parametrize("small", [0, 10**6])
async def test_shards_of_a_store_that_is_no_folder_are_read_and_merged(
    tmp_path, monkeypatch, small
):
    monkeypatch.setattr("lorid.artifacts.shards.SMALL_SHARD_BYTES", small)
    monkeypatch.setattr("lorid.artifacts.shards.MERGE_ABOVE", 40)
    store = Elsewhere(LocalStore(tmp_path))
    for number in range(50):
        ledger = Ledger(shard=UploadedKeys(store, f"{folder_of('run')}{number:03d}.jsonl"))
        await ledger.add([stored(number), stored(number + 100, text="a\nb")])
    store.write(f"{folder_of('run')}torn.jsonl", b'\n{"key": "torn')
    for num_shards in (51, 1):
        opened = Ledger.opened(store, name="run")
        assert keys(opened) == {f"k{n}" for number in range(50) for n in (number, number + 100)}
        assert opened.find("k107") == stored(107, text="a\nb")
        assert len(store.list(folder_of("run"))) == num_shards
        merge_ledger(store, "run")

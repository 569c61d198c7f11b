"""A triple on a node: fetched once, whole, and never trusted when changed."""

import os
from pathlib import Path

import pytest
from triple_files import publish_triple as publish_with_files
from triple_files import write_base

from lorid.artifacts.aliases import promote
from lorid.artifacts.copies import NUM_SPARE, fetch_once
from lorid.artifacts.records import fetch, publish
from lorid.artifacts.store import open_store
from lorid.distributed.deployments import app_of_run
from lorid.distributed.sources import Address, parse_address
from lorid.errors import ArtifactIncomplete, ConfigError


def publish_triple(tmp_path):
    store = open_store(str(tmp_path / "store"))
    return store, publish_with_files(store, tmp_path / "made", base=write_base(tmp_path / "base"))


def test_a_second_replica_uses_the_first_one_s_copy(tmp_path):
    store, record = publish_triple(tmp_path)
    first = fetch_once(store, record, cache=tmp_path / "cache").folder
    inode = (first / "triple.json").stat().st_ino
    second = fetch_once(store, record, cache=tmp_path / "cache").folder
    assert (second / "triple.json").stat().st_ino == inode
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_a_changed_copy_is_fetched_again(tmp_path):
    store, record = publish_triple(tmp_path)
    copy = fetch_once(store, record, cache=tmp_path / "cache").folder / "triple.json"
    good = copy.read_text()
    copy.write_text("changed")
    fetch_once(store, record, cache=tmp_path / "cache")
    assert copy.read_text() == good


def test_a_fetch_that_fails_leaves_nothing(tmp_path):
    store, record = publish_triple(tmp_path)
    for blob in (tmp_path / "store" / "blobs").iterdir():
        blob.unlink()
    with pytest.raises(ArtifactIncomplete):
        fetch_once(store, record, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_copies_that_nobody_uses_go_but_for_the_newest(tmp_path):
    store, record = publish_triple(tmp_path)
    files = fetch(store, record, into=tmp_path / "files")
    cache = tmp_path / "cache"
    begun = cache / "begun-by-a-replica-that-died"
    begun.mkdir(parents=True)
    in_use = fetch_once(store, record, cache=cache)
    os.utime(begun, (0, 0))
    os.utime(in_use.folder, (0, 0))
    seen: list[Path] = []
    for number in range(NUM_SPARE + 2):
        later = publish(store, files, kind="triple", name="demo", inputs={"number": number})
        copy = fetch_once(store, later, cache=cache)
        seen.append(copy.folder)
        os.utime(copy.folder, (number, number + 1))
    newest = seen[-NUM_SPARE:]
    assert sorted(cache.iterdir()) == sorted([in_use.folder, *newest])
    del in_use
    fetch_once(store, record, cache=cache)
    last = publish(store, files, kind="triple", name="demo", inputs={"number": "last"})
    fetch_once(store, last, cache=cache)
    assert len(list(cache.iterdir())) == NUM_SPARE


def test_a_cache_that_is_a_link_is_refused(tmp_path):
    store, record = publish_triple(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="another user"):
        fetch_once(store, record, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("run", "store", "reference"),
    [
        ("a/store#demo", "a/store", "demo"),
        ("a/store#demo/0123", "a/store", "demo/0123"),
        ("s3://bucket/lorid@production", "s3://bucket/lorid", "@production"),
        ("me@home/x#y/store@production", "me@home/x#y/store", "@production"),
    ],
)
def test_an_address_is_divided_at_its_last_mark(run, store, reference):
    assert parse_address(run) == Address(store=store, reference=reference)


def test_an_address_names_a_run_a_version_or_an_alias(tmp_path):
    store, record = publish_triple(tmp_path)
    with pytest.raises(ArtifactIncomplete, match="no alias 'production'"):
        app_of_run(f"{store.uri}@production")
    promote(store, "production", record.address)
    for reference in ("#demo", f"#demo/{record.version}", "@production"):
        assert app_of_run(f"{store.uri}{reference}")


def test_a_run_address_takes_changes_of_its_config(tmp_path):
    publish_triple(tmp_path)
    assert app_of_run(f"{tmp_path}/store#demo", overrides={"serving.num_replicas": "2"})
    with pytest.raises(ConfigError, match=r"serving\.num_replicas"):
        app_of_run(f"{tmp_path}/store#demo", overrides={"serving.num_replicas": "0"})

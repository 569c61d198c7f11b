"""A triple on a node: fetched once, whole, and never trusted when changed."""

import pytest

from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store
from lorid.config import dump_config
from lorid.distributed.deployments import app_of_run, fetch_once
from lorid.errors import ArtifactIncomplete, ConfigError
from lorid.presets import demo


def publish_triple(tmp_path, *, version=1, config=None):
    source = tmp_path / f"source{version}"
    (source / "adapters" / "deep_reasoner").mkdir(parents=True)
    (source / "config.yaml").write_text(dump_config(config or demo()))
    (source / "adapters" / "deep_reasoner" / "adapter_config.json").write_text("{}")
    store = open_store(str(tmp_path / "store"))
    return store, publish(store, source, kind="triple", name="demo", inputs={"version": version})


def test_a_second_replica_uses_the_first_one_s_copy(tmp_path):
    store, record = publish_triple(tmp_path)
    first = fetch_once(store, record, cache=tmp_path / "cache")
    inode = (first / "config.yaml").stat().st_ino
    second = fetch_once(store, record, cache=tmp_path / "cache")
    assert (second / "config.yaml").stat().st_ino == inode
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.name]


def test_a_changed_copy_is_fetched_again(tmp_path):
    store, record = publish_triple(tmp_path)
    copy = fetch_once(store, record, cache=tmp_path / "cache") / "config.yaml"
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


def test_a_cache_that_is_a_link_is_refused(tmp_path):
    store, record = publish_triple(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="another user"):
        fetch_once(store, record, cache=tmp_path / "cache")


def test_a_run_address_takes_changes_of_its_config(tmp_path):
    publish_triple(tmp_path)
    assert app_of_run(f"{tmp_path}/store#demo", overrides={"serving.num_replicas": "2"})
    with pytest.raises(ConfigError, match=r"serving\.num_replicas"):
        app_of_run(f"{tmp_path}/store#demo", overrides={"serving.num_replicas": "0"})

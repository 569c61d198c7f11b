"""Artifacts are complete or absent, verified, and one of racing writers wins."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lorid.artifacts.records import differences, fetch, find, fingerprint, publish
from lorid.artifacts.stages import run_stage
from lorid.artifacts.store import open_store
from lorid.errors import ArtifactDrifted, ArtifactError, ArtifactIncomplete

NUM_RACERS = 20
# 60 have been run on Ceph; CI does fewer, for its time.
NUM_ROUNDS = int(os.environ.get("LORID_RACE_ROUNDS", "5"))


def folder_with(path: Path, **files: str) -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def test_what_is_written_is_read_listed_and_survives_a_pickle(store, tmp_path):
    (tmp_path / "file").write_bytes(b"y" * 100_000)
    assert store.write("a/b", b"x")
    assert store.write("a/c", tmp_path / "file")
    other = pickle.loads(pickle.dumps(store))
    assert other.read("a/b") == b"x"
    assert other.read("a/c", into=tmp_path / "copy") == b""
    assert (tmp_path / "copy").read_bytes() == b"y" * 100_000
    assert store.list("a/") == ["a/b", "a/c"]
    assert store.list("a/c") == ["a/c"]
    assert store.list("b") == []
    assert store.write("a/b", b"z", if_absent=True) is False
    assert store.read("a/b") == b"x"
    with pytest.raises(ArtifactIncomplete, match="a/missing"):
        store.read("a/missing")


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/../../b", "a\\b", "a\x00", ""])
def test_keys_that_are_not_plain_relative_paths_are_refused(store, key):
    with pytest.raises(ArtifactError):
        store.write(key, b"x")


def test_of_racing_writers_one_wins_and_its_content_stays(store):
    for attempt in range(5):
        key = f"race/{attempt}"
        with ThreadPoolExecutor(NUM_RACERS) as pool:
            won = list(
                pool.map(
                    lambda racer, key=key: store.write(key, str(racer).encode(), if_absent=True),
                    range(NUM_RACERS),
                )
            )
        assert won.count(True) == 1
        assert store.read(key) == str(won.index(True)).encode()


@pytest.mark.timeout(300)
def test_of_twenty_publishers_of_one_name_one_wins_and_all_read_its_content(store, tmp_path):
    for attempt in range(NUM_ROUNDS):
        inputs = {"round": attempt}
        folders = [
            folder_with(tmp_path / f"{attempt}-{racer}", a=f"{racer}", b=f"{attempt} {racer}" * 99)
            for racer in range(NUM_RACERS)
        ]
        ready = threading.Barrier(NUM_RACERS)

        def race(folder: Path, ready=ready, inputs=inputs):
            ready.wait()
            return publish(store, folder, kind="data", name="race", inputs=inputs)

        with ThreadPoolExecutor(NUM_RACERS) as pool:
            records = list(pool.map(race, folders))
        assert len({record.model_dump_json() for record in records}) == 1
        out = fetch(store, records[0], into=tmp_path / f"out-{attempt}")
        racer = (out / "a").read_text()
        assert (out / "b").read_text() == f"{attempt} {racer}" * 99


def test_an_artifact_is_found_by_its_inputs_and_comes_back_whole(store, tmp_path):
    folder = folder_with(tmp_path / "in", a="1", b="2")
    inputs = {"x": 1, "y": [1, 2]}
    record = publish(store, folder, kind="data", name="n", inputs=inputs, details={"count": 3})
    assert find(store, kind="data", name="n", inputs=inputs) == record
    assert find(store, kind="data", name="n", inputs={**inputs, "x": 2}) is None
    out = fetch(store, record, into=tmp_path / "out")
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a": "1", "b": "2"}
    assert differences(record, {"x": 2, "y": (1, 2)}) == ["x: 1 -> 2"]


def test_a_changed_file_is_an_error_that_names_it(store, tmp_path):
    folder = folder_with(tmp_path / "in", a="right")
    record = publish(store, folder, kind="data", name="n", inputs={})
    store.write(f"blobs/{record.files[0].sha256}", b"wrong")
    with pytest.raises(ArtifactDrifted, match="a differs"):
        fetch(store, record, into=tmp_path / "out")


def test_a_stage_that_fails_leaves_nothing_and_one_that_is_done_is_skipped(store):
    calls: list[str] = []

    def run(build, x=1):
        return run_stage(
            store, kind="data", name="n", inputs={"x": x}, parents=(), build=build,
            announce=calls.append,
        )  # fmt: skip

    def interrupted(folder: Path):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    def whole(folder: Path):
        (folder / "whole").write_text("whole")
        return {"count": 1}

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)
    assert find(store, kind="data", name="n", inputs={"x": 1}) is None
    record = run(whole)
    assert [entry.path for entry in record.files] == ["whole"]
    assert run(interrupted) == record
    assert "already done" in calls[-1]
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, x=2)
    assert calls[-1] == f"  changed since {record.address}: x: 1 -> 2"


def test_pickled_weights_and_links_are_not_stored(tmp_path):
    store = open_store(str(tmp_path / "store"))
    folder = folder_with(tmp_path / "bin", **{"weights.bin": "x"})
    with pytest.raises(ArtifactError, match="pickled"):
        publish(store, folder, kind="adapter", name="n", inputs={})
    disguised = tmp_path / "disguised"
    disguised.mkdir()
    (disguised / "adapter.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ArtifactError, match="pickled"):
        publish(store, disguised, kind="adapter", name="n", inputs={})
    linked = folder_with(tmp_path / "linked", a="1")
    (linked / "link").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="link"):
        publish(store, linked, kind="data", name="n", inputs={})


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_inputs_without_an_exact_form_are_refused(value):
    with pytest.raises((TypeError, ValueError)):
        fingerprint({"x": value})


def test_a_store_that_cannot_be_used_says_so_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for place in ("file", "file/store"):
        with pytest.raises(ArtifactError, match="file is a file; name a folder") as caught:
            open_store(str(tmp_path / place))
        assert "\n" not in str(caught.value)
    store = open_store(str(tmp_path / "later" / "store"))
    (tmp_path / "later").write_text("not a folder")
    with pytest.raises(ArtifactError, match="a file is where a folder should be") as caught:
        store.write("a", b"x")
    assert "\n" not in str(caught.value)
    for malformed in ("s3://", "gs://bucket", ""):
        with pytest.raises(ArtifactError):
            open_store(malformed)

"""A publisher that is killed leaves whole artifacts or none, and what is left over can go."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorid.artifacts.aliases import current_entry, promote
from lorid.artifacts.gc import find_leftovers, remove_leftovers
from lorid.artifacts.records import fetch, list_records, load_record, publish
from lorid.errors import ArtifactDrifted, ArtifactIncomplete

# 50 have been run on both stores; CI does fewer, for its time.
NUM_KILLS = int(os.environ.get("LORID_KILLS", "15"))


@pytest.mark.timeout(600)
def test_no_torn_artifact_is_ever_read_after_kill_9(store, tmp_path):
    # Each is killed at a moment of its own, within the time that its first uploads take.
    chance = random.Random(1)
    script = Path(__file__).with_name("crash_publisher.py")
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for number in range(NUM_KILLS):
            folder = tmp_path / f"in{number}"
            order = {"store": store.uri, "folder": str(folder), "seed": number}
            parent.stdin.write(json.dumps(order) + "\n")
            parent.stdin.flush()
            pid = int(parent.stdout.readline())
            time.sleep(chance.uniform(0, 0.4))
            os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder, ignore_errors=True)
    records = list_records(store)
    for number, record in enumerate(records):
        out = fetch(store, record, into=tmp_path / "out" / str(number))
        assert sorted(path.name for path in out.iterdir()) == ["a", "b", "c"]
        shutil.rmtree(out)
    leftovers = find_leftovers(store, grace_s=0)
    assert leftovers, "no kill came in the middle of an upload: the test has shown nothing"
    print(f"{len(records)} whole artifacts, {len(leftovers)} things left over")
    remove_leftovers(store, leftovers, grace_s=0, removed=lambda leftover: None)
    assert find_leftovers(store, grace_s=0) == []
    for number, record in enumerate(records[:3]):
        fetch(store, record, into=tmp_path / "again" / str(number))


def test_gc_takes_what_nobody_names_and_leaves_what_is_young(store, make_folder, tmp_path):
    kept = publish(store, make_folder("kept", {"a": 10, "b": 20}), kind="data", name="n", inputs={})
    store.write("blobs/" + "0" * 64, b"orphan")
    named = publish(store, make_folder("named", {"c": 30}), kind="triple", name="n", inputs={})
    promote(store, "production", named.address)
    assert find_leftovers(store, grace_s=3600) == []
    leftovers = find_leftovers(store, grace_s=-60)
    assert [one.entry.key for one in leftovers] == ["blobs/" + "0" * 64]
    # Stored again between the two: it is young now.
    remove_leftovers(store, leftovers, grace_s=3600, removed=lambda leftover: None)
    assert store.read("blobs/" + "0" * 64) == b"orphan"
    remove_leftovers(store, leftovers, grace_s=-60, removed=lambda leftover: None)
    with pytest.raises(ArtifactIncomplete):
        store.read("blobs/" + "0" * 64)
    fetch(store, kept, into=tmp_path / "out")
    entry = current_entry(store, "production")
    assert entry is not None
    fetch(store, load_record(store, entry.target), into=tmp_path / "named-out")


def test_content_that_is_stored_again_counts_as_new(store, make_folder):
    folder = make_folder("in", {"large": 17 * 1024**2})
    before = publish(store, folder, kind="data", name="n", inputs={})
    key = f"blobs/{before.files[0].sha256}"
    store.remove(f"{before.address}/record.json")
    (old,) = store.entries(key)
    deadline = time.monotonic() + 20
    while True:
        publish(store, folder, kind="data", name="n", inputs={})
        (new,) = store.entries(key)
        if new.modified_at > old.modified_at or time.monotonic() > deadline:
            break
    assert new.modified_at > old.modified_at


def test_gc_removes_nothing_when_a_record_cannot_be_read(store, make_folder):
    record = publish(store, make_folder("in", {"a": 10}), kind="data", name="n", inputs={})
    store.write(f"{record.address}/record.json", b"{")
    with pytest.raises(ArtifactDrifted, match="damaged"):
        find_leftovers(store, grace_s=-60)
    store.remove(f"{record.address}/record.json")
    assert len(find_leftovers(store, grace_s=-60)) == 1
    store.write("of-a-kind-to-come/n/1/record.json", record.model_dump_json().encode())
    with pytest.raises(ArtifactDrifted):
        find_leftovers(store, grace_s=-60)

"""The vLLM teacher on several processes: a pool that grows, and tensor parallelism.

Each loads an engine or two and takes a minute or more, so they run only when asked for:
LORID_TEACHER_POOL=1.
"""

import json
import os
import threading
from pathlib import Path

import pytest
from small import num_processes
from widened import write_widened

from lorid.artifacts.records import Record
from lorid.config import RunConfig, load_config
from lorid.distributed.cluster import connected
from lorid.distributed.pipeline import run_pipeline

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif("LORID_TEACHER_POOL" not in os.environ, reason="LORID_TEACHER_POOL=1"),
]


def run_config(folder: Path, *, num: int, **teacher) -> RunConfig:
    settings = [f"teacher.{key.replace('__', '.')}={value}" for key, value in teacher.items()]
    return load_config(
        None,
        preset="demo",
        overrides=[
            f"store={folder}", f"data.num_train={num}", "data.num_test=4", *settings,
        ],
    )  # fmt: skip


def taught(config: RunConfig, *, title: str) -> tuple[Record, int]:
    """The knowledge stage's record, and how many processes of that title there were at most."""
    seen, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(1):
            seen.append(num_processes(title))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with connected():
            stages = ("prepare", "knowledge")
            records = run_pipeline(config, stages=stages, announce=lambda _: None)
    finally:
        over.set()
        watcher.join()
    return records["knowledge"], max(seen)


def texts_of(store: Path) -> dict[str, str]:
    """The ledger's texts by the request's key."""
    lines = [
        line
        for file in sorted((store / "ledgers" / "demo").glob("*.jsonl"))
        for line in file.read_text().splitlines()
        if line.strip()
    ]
    return {row["key"]: row["text"] for row in map(json.loads, lines)}


def test_the_pool_grows(tmp_path):
    config = run_config(
        tmp_path / "store", num=800, batch_rows=16, engine__max_num_seqs=8,
        num_engines=1, max_engines=2,
    )  # fmt: skip
    record, num_engines = taught(config, title="VLLM::EngineCore")
    assert num_engines == 2
    assert record.details["num_kept"] + record.details["num_rejected"] == 800
    assert record.details["num_kept"] >= 0.99 * 800


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a worker needs a core of its own")
def test_a_teacher_shared_by_two_workers_writes_the_same(tmp_path):
    model, kept = write_widened(tmp_path / "teacher", model="teacher"), []
    for size in (1, 2):
        config = run_config(
            tmp_path / f"store{size}", num=64, model__path=model, sampling__temperature=0,
            engine__tensor_parallel_size=size,
        )  # fmt: skip
        record, num_workers = taught(config, title="VLLM::Worker")
        assert num_workers == (2 if size == 2 else 0)
        kept.append(record.details["num_kept"])
    assert kept == [64, 64]
    assert texts_of(tmp_path / "store1") == texts_of(tmp_path / "store2")

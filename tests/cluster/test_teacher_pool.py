"""The vLLM teacher's pool of engines grows when there is work for more.

It loads two engines and takes minutes, so it runs only when asked for: LORID_TEACHER_POOL=1.
"""

import os
import threading
from contextlib import suppress

import psutil
import pytest

from lorid.config import load_config
from lorid.distributed.cluster import connected
from lorid.distributed.pipeline import run_pipeline

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif("LORID_TEACHER_POOL" not in os.environ, reason="LORID_TEACHER_POOL=1"),
]
NUM = 800


def num_processes(title: str) -> int:
    """Processes of this test whose title holds that."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += title in " ".join(process.cmdline())
    return found


def test_the_pool_grows(tmp_path):
    config = load_config(
        None,
        preset="demo",
        overrides=[
            f"store={tmp_path / 'store'}", f"data.num_train={NUM}", "data.num_test=4",
            "teacher.batch_rows=16", "teacher.engine.max_num_seqs=8",
            "teacher.num_engines=1", "teacher.max_engines=2",
        ],
    )  # fmt: skip
    seen, over = set(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            seen.add(num_processes("VLLM::EngineCore"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with connected():
            stages = ("prepare", "knowledge")
            record = run_pipeline(config, stages=stages, announce=lambda _: None)["knowledge"]
    finally:
        over.set()
        watcher.join()
    assert max(seen) == 2
    assert record.details["num_kept"] + record.details["num_rejected"] == NUM
    assert record.details["num_kept"] >= 0.99 * NUM

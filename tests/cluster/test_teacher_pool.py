"""The vLLM teacher on several engines: the pool that grows, and tensor parallelism.

Each loads two engines for a minute or more, so they run only when asked for: LORID_TEACHER_POOL=1.
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


@pytest.mark.parametrize(
    ("settings", "title", "num"),
    [
        (["teacher.num_engines=1", "teacher.max_engines=2"], "VLLM::EngineCore", 2),
        # The demo's teacher has three heads.
        (["teacher.engine.tensor_parallel_size=3"], "VLLM::Worker", 3),
    ],
    ids=["grows", "tensor-parallel"],
)
def test_several_processes_teach(tmp_path, settings, title, num):
    config = load_config(
        None,
        preset="demo",
        overrides=[
            f"store={tmp_path / 'store'}", f"data.num_train={NUM}", "data.num_test=4",
            "teacher.batch_rows=16", "teacher.engine.max_num_seqs=8", *settings,
        ],
    )  # fmt: skip
    seen, over = set(), threading.Event()

    def watch() -> None:
        while not over.wait(1):
            seen.add(num_processes(title))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with connected():
            stages = ("prepare", "knowledge")
            record = run_pipeline(config, stages=stages, announce=lambda _: None)["knowledge"]
    finally:
        over.set()
        watcher.join()
    assert max(seen) == num
    assert record.details["num_kept"] + record.details["num_rejected"] == NUM
    assert record.details["num_kept"] >= 0.99 * NUM

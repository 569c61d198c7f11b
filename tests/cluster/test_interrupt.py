"""Ctrl-C in the middle of a stage: what is finished stays, nothing is left running."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from small import small_config_text

from lorid.artifacts.records import list_records
from lorid.artifacts.store import open_store

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(400)]
ROOT = Path(__file__).resolve().parents[2]


def marked(mark: str) -> list[psutil.Process]:
    """The processes that were started, directly or not, with `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LORID_TEST_MARK") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("line_of_stage", "finished", "unfinished"),
    [
        ("train: ", {"data", "knowledge"}, "triple"),
        ("evaluate: mutual feedback", {"data", "knowledge", "adapter", "triple"}, "evaluation"),
    ],
)
def test_an_interrupted_run_keeps_what_is_finished_and_leaves_no_process(
    tmp_path, line_of_stage, finished, unfinished
):
    (tmp_path / "run.yaml").write_text(small_config_text(store=tmp_path / "store", name="stopped"))
    command = [sys.executable, str(ROOT / "jobs" / "distill.py"), "--config", "run.yaml"]
    mark = uuid.uuid4().hex
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment["LORID_TEST_MARK"] = mark
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(line_of_stage):
            assert len(marked(mark)) > 3
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130, "".join(lines) + rest
    assert "run again to resume" in rest
    assert "Traceback" not in rest

    kinds = {record.kind for record in list_records(open_store(str(tmp_path / "store")))}
    assert finished <= kinds
    assert unfinished not in kinds

    deadline = time.monotonic() + 60
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, [process.cmdline() for process in left]

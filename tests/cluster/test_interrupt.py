"""Ctrl-C in each stage: what is finished stays, nothing is left running, the next run resumes."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
import yaml
from small import CUT_OFF, said_of_too_long, small_config_text

from lorid.artifacts.records import list_records
from lorid.artifacts.store import open_store

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(600)]
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


def stop_at(line_start: str, *overrides: str, folder: Path, by: signal.Signals) -> str:
    """Run the job, signal it at the first line that begins so, and return all that it said."""
    command = [sys.executable, str(ROOT / "jobs" / "distill.py"), "--config", "run.yaml"]
    command += [word for override in overrides for word in ("--set", override)]
    mark = uuid.uuid4().hex
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "LORID_TEST_MARK": mark},
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith(line_start):
            process.send_signal(by)
            break
    said += process.stderr.read()
    assert process.wait(timeout=60) == 130, said
    deadline = time.monotonic() + 60
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, [process.cmdline() for process in left]
    return said


def test_a_run_that_is_interrupted_in_every_stage_keeps_what_is_finished_and_resumes(tmp_path):
    store = tmp_path / "store"
    sections = yaml.safe_load(small_config_text(store=store, name="stopped"))
    sections["training"]["max_sequence_tokens"] = CUT_OFF
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(sections))
    finished: set[str] = set()
    said = ""
    for line_start, overrides, by, newly_finished in (
        ("[prepare]", ("data.num_train=200000",), signal.SIGINT, set()),
        ("knowledge: teacher 0/", (), signal.SIGTERM, {"data"}),
        ("train: IR ", (), signal.SIGINT, {"knowledge"}),
        ("evaluate: mutual feedback", (), signal.SIGINT, {"adapter", "triple"}),
    ):
        said = stop_at(line_start, *overrides, folder=tmp_path, by=by)
        assert "Traceback" not in said
        assert said.rstrip().endswith("run again to resume")
        # What an earlier run finished is not made again.
        assert said.count("already done, skipped") == len(finished & {"data", "knowledge"})
        finished |= newly_finished
        kinds = {record.kind for record in list_records(open_store(str(store)))}
        assert kinds == finished
    (deep,) = (
        record
        for record in list_records(open_store(str(store)), kind="adapter")
        if record.name.endswith("deep_reasoner")
    )
    assert 0 < deep.details["num_dropped_too_long"] < 48
    assert said_of_too_long(said, adapter=deep), said

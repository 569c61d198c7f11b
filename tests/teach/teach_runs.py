"""Runs of the knowledge stage against the misbehaving server: what the kill tests share.

A run's processes carry a mark in their environment, so that only they are ever killed.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from misbehaving_server import Server
from model_answers import rules_for

from lorid.artifacts.enriched import read_enriched
from lorid.artifacts.records import Record, fetch, list_records
from lorid.artifacts.shards import read_lines
from lorid.artifacts.store import open_store
from lorid.jsonl import read_jsonl
from lorid.teacher.ledger import Stored, folder_of

ROOT = Path(__file__).resolve().parents[2]
MARK = "LORID_TEST_MARK"
# Faults that an answer of any attempt may have; each question meets two at most. Those that ask for
# patience are rare: each halves what is in flight, and most hold all requests back for a second.
FAULTS = {
    "429": 0.0005, "429 without header": 0.0005, "500": 0.02, "503": 0.0005, "500 html": 0.01,
    "200 html": 0.01, "200 error": 0.01, "reset": 0.02, "cut": 0.02, "slow drip": 0.02,
    "bad body": 0.01, "no choices": 0.01, "refusal": 0.01, "content filter": 0.01, "length": 0.02,
    "malformed": 0.02, "empty list": 0.02, "wrong keys": 0.02, "not strings": 0.01,
    "prose": 0.03, "fenced": 0.03, "thinking": 0.03,
}  # fmt: skip
# Questions that get nothing but this, and must be set aside with a reason.
STUBBORN = {"refusal": 0.005, "empty list": 0.005, "length": 0.005}


def write_problems(folder: Path, *, num: int) -> None:
    """GSM8K rows with questions of their own."""
    rows = [
        {
            "question": f"A farm sells {number + 20} crates of pears and keeps 7 for itself. "
            "How many crates were there?",
            "answer": f"There were {number + 20}+7 = {number + 27} crates.\n#### {number + 27}",
        }
        for number in range(num + 1)
    ]
    # A question of both splits would be taken from the training.
    for name, some in (("train", rows[:num]), ("test", rows[num:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))


def write_config(
    folder: Path, server: Server, *, train: Path | None = None, store: str | None = None,
    api: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A run whose teacher is the server; data from the folder's files."""
    config = {
        "preset": "demo",
        "name": "teach",
        "store": store or str(folder / "store"),
        "data": {
            "source": "jsonl",
            "train": str(train or folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "num_train": None,
            "num_test": None,
        },
        "teacher": {
            "kind": "api",
            "api": {
                "model": "teacher", "base_url": server.url, "api_key_env": None,
                "max_in_flight": 32, "timeout_s": 10, **(api or {}),
            },
        },
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def prepare(folder: Path) -> None:
    """The data stage, which needs no cluster."""
    command = [sys.executable, str(ROOT / "jobs" / "prepare_data.py"), "--config", "run.yaml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)


@dataclass
class Job:
    """One start of jobs/generate_knowledge.py, with all processes that it starts."""

    folder: Path
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        command = [sys.executable, str(ROOT / "jobs" / "generate_knowledge.py")]
        command += ["--config", "run.yaml"]
        command += [word for override in self.overrides for word in ("--set", override)]
        kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        self.log = self.folder / f"job-{self.mark[:8]}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**kept, **self.environment, MARK: self.mark},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """All that carry the mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def named(self, part: str) -> list[psutil.Process]:
        """Ray's workers whose title holds that; Ray writes `ray::Class.method` over it."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or [])
            try:
                if title.startswith("ray::") and part in title and self.is_ours(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def is_ours(self, process: psutil.Process) -> bool:
        """Whether it descends from this job: a title that was written over hides the mark."""
        return any(parent.pid == self.process.pid for parent in process.parents())

    def is_running(self) -> bool:
        """Whether the driver is."""
        return self.process.poll() is None

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text()

    def end(self, *, timeout_s: float = 60) -> None:
        """Nothing of it is left, or an AssertionError; kills what is."""
        ends_at = time.monotonic() + timeout_s
        while self.processes() and time.monotonic() < ends_at:
            time.sleep(0.1)
        left = [process.cmdline() for process in self.processes()]
        self.kill()
        assert not left, left

    def kill(self) -> None:
        """Whatever still runs of it."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()


def ledger_of(store: str, *, name: str = "teach") -> list[Stored]:
    """Every response that is durable, in order; torn lines are passed over."""
    responses = []
    for line in read_lines(open_store(store), folder_of(name)):
        try:
            responses.append(Stored.from_line(line))
        except ValueError:
            continue
    return responses


def number_of(stored: Stored) -> int:
    """The request that it answers, which `numbered_models` wrote into it."""
    return int(stored.reply.model.rpartition("-")[2])


def knowledge_records(store: str) -> list[Record]:
    """The artifacts of the stage."""
    return [r for r in list_records(open_store(store)) if r.kind == "knowledge"]


def outcomes(store: str, record: Record, folder: Path) -> tuple[dict[str, list[str]], dict]:
    """Rules by question, and reasons by question, of an artifact."""
    fetch(open_store(store), record, into=folder)
    kept = {item.problem.question: list(item.knowledge) for item in read_enriched(folder)}
    rejects = {r["question"]: r["reason"] for _, r in read_jsonl(folder / "rejects.jsonl")}
    return kept, rejects


def assert_own_knowledge(kept: Mapping[str, list[str]], *, model: str) -> None:
    """Every question has the rules that this model gives for it, and no other's."""
    wrong = {q: rules for q, rules in kept.items() if rules != rules_for(q, model=model)}
    assert not wrong, list(wrong.items())[:2]


def assert_nothing_durable_was_asked_again(
    log: Sequence[Mapping[str, Any]], responses: Sequence[Stored]
) -> None:
    """The newest request of a kind is the durable one, if any of them is."""
    received = [entry for entry in log if entry["event"] == "received"]
    newest = {entry["body"]: entry["number"] for entry in received}
    body_of = {entry["number"]: entry["body"] for entry in received}
    durable = [number_of(stored) for stored in responses]
    assert len(set(durable)) == len(durable)
    again = [number for number in durable if newest[body_of[number]] != number]
    assert not again, f"{len(again)} of {len(durable)} were asked for again"

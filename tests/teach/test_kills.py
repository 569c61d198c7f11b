"""kill -9 of workers, the desk, the driver and the whole cluster: nothing paid for is asked again.

    LORID_TEACH_KILLS=20 LORID_TEACH_PROBLEMS=2000 pytest tests/teach/test_kills.py

The server counts, the ledger is read by itself, and the two are held against each other.
"""

import os
import random
import signal
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import psutil
import pytest
from misbehaving_server import Server, misbehaving_server
from model_answers import TEXT_FAULTS, USABLE, question_id
from teach_runs import (
    FAULTS,
    STUBBORN,
    Job,
    assert_own_knowledge,
    knowledge_records,
    ledger_of,
    number_of,
    outcomes,
    prepare,
    write_config,
    write_problems,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]
NUM_KILLS = int(os.environ.get("LORID_TEACH_KILLS", "2"))
NUM_PROBLEMS = int(os.environ.get("LORID_TEACH_PROBLEMS", "400"))
SEED = int(os.environ.get("LORID_TEACH_SEED", "1"))
KINDS = ("worker", "driver", "cluster", "desk")
MAX_IN_FLIGHT = 32
# Answers with these reach the ledger: they were paid for. The others are failures of the request.
PAID = USABLE | set(TEXT_FAULTS) | {"refusal", "content filter", "length"}


def victims(job: Job, kind: str) -> list[psutil.Process]:
    """Who is killed."""
    if kind == "driver":
        return [psutil.Process(job.process.pid)]
    if kind == "cluster":
        return job.processes()
    return job.named("TeacherWorker" if kind == "worker" else "DeskActor")


def wait_for_requests(job: Job, server: Server, *, num: int) -> bool:
    """Until the server has had so many requests, or the job has ended."""
    while job.is_running():
        if server.counts()["num_requests"] >= num:
            return True
        time.sleep(0.01)
    return False


def kill(job: Job, kind: str) -> float:
    """Kill -9; the time just before it."""
    chosen, at = victims(job, kind), time.time()
    assert chosen, (kind, job.said())
    for process in chosen:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    return at


def run_with_kills(folder, server: Server) -> list[dict[str, Any]]:
    """The stage to its end, with kills on the way; what was killed and when."""
    chance = random.Random(SEED)
    kinds = [KINDS[number % len(KINDS)] for number in range(NUM_KILLS)]
    kills: list[dict[str, Any]] = []
    job = Job(folder)
    for kind in kinds:
        some = chance.randint(1, NUM_PROBLEMS // (NUM_KILLS + 1))
        wait_for_requests(job, server, num=server.counts()["num_requests"] + some)
        assert job.is_running(), f"ended before all kills: {job.said()}"
        counts = server.counts()
        kills.append({"kind": kind, "at": kill(job, kind), "in_flight": counts["in_flight"]})
        if kind in ("driver", "cluster"):
            job.process.wait(timeout=60)
            job.end()
            job = Job(folder)
    while job.process.wait(timeout=900):
        # A stage that could not mend itself says so, and goes on when it is started again.
        assert "run again to resume" in job.said(), job.said()
        kills.append({"kind": "gave up", "at": time.time(), "in_flight": 0})
        job = Job(folder)
    job.end()
    return kills


def assert_nothing_durable_was_asked_again(log, responses) -> None:
    """The newest request of a kind is the durable one, if any of them is."""
    received = [entry for entry in log if entry["event"] == "received"]
    newest = {entry["body"]: entry["number"] for entry in received}
    body_of = {entry["number"]: entry["body"] for entry in received}
    durable = [number_of(stored) for stored in responses]
    assert len(set(durable)) == len(durable)
    again = [number for number in durable if newest[body_of[number]] != number]
    assert not again, f"{len(again)} of {len(durable)} were asked for again"


def repeats(log) -> list[dict[str, Any]]:
    """Requests whose answer was good enough to keep, and that were sent again all the same."""
    by_body = defaultdict(list)
    for entry in log:
        if entry["event"] == "received":
            by_body[entry["body"]].append(entry)
    return [
        entry for entries in by_body.values() for entry in entries[:-1] if entry["fault"] in PAID
    ]


def test_kills_lose_no_response_and_pay_for_none_twice(tmp_path):
    write_problems(tmp_path, num=NUM_PROBLEMS)
    store = str(tmp_path / "store")
    with misbehaving_server(
        latency={"kind": "lognormal", "median_s": 0.15, "sigma": 0.5}, faults=FAULTS,
        stubborn=STUBBORN, max_faults_per_question=2, numbered_models=True, seed=SEED,
    ) as server:  # fmt: skip
        write_config(tmp_path, server, api={"max_in_flight": MAX_IN_FLIGHT})
        prepare(tmp_path)
        kills = run_with_kills(tmp_path, server)
        log = server.log()
    responses = ledger_of(store)
    assert_nothing_durable_was_asked_again(log, responses)
    repeated = repeats(log)
    print(f"{len(kills)} kills, {len(responses)} responses, {len(repeated)} repeated: {kills}")
    # Each was on its way at a kill, and no kill costs more than may be on the way.
    marks = [entry["at"] for entry in kills]
    for start, end in zip([0.0, *marks], [*marks, float("inf")], strict=True):
        assert sum(start <= entry["at"] < end for entry in repeated) <= MAX_IN_FLIGHT
    assert all(entry["at"] <= max(marks) for entry in repeated)
    assert len({entry["question"] for entry in log}) == NUM_PROBLEMS
    (record,) = knowledge_records(store)
    kept, rejects = outcomes(store, record, tmp_path / "out")
    assert_own_knowledge(kept, model="teacher")
    assert len(kept) + len(rejects) == NUM_PROBLEMS
    assert all(rejects.values())
    stubborn = {e["question"] for e in log if e["fault"] in STUBBORN}
    assert {question_id(question) for question in rejects} <= stubborn

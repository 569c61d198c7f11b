"""kill -9 of worker, desk, driver and cluster, a store that is gone, another model half-way.

    LORID_TEACH_KILLS=20 LORID_TEACH_PROBLEMS=600 LORID_TEACH_OUTAGE_S=30 \\
        LORID_TEACH_STORE=local pytest tests/teach/test_kills.py -s

The server says what was asked and what it sent, the ledger is read apart from the stage, and the
two are held against each other: every problem ends with its knowledge or a reason, nothing that was
durable is asked for again, and a kill costs no more requests than were on their way.
"""

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_proxy import FaultProxy
from misbehaving_server import Server, misbehaving_server
from model_answers import TEXT_FAULTS, USABLE, question_id
from teach_runs import (
    FAULTS,
    STUBBORN,
    Job,
    assert_nothing_durable_was_asked_again,
    assert_own_knowledge,
    knowledge_records,
    ledger_of,
    outcomes,
    prepare,
    write_config,
    write_problems,
)

from lorid.teacher.ledger import UPLOAD_RESPONSES

Kill = dict[str, Any]

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(1500)]
NUM_KILLS = int(os.environ.get("LORID_TEACH_KILLS", "2"))
NUM_PROBLEMS = int(os.environ.get("LORID_TEACH_PROBLEMS", "240"))
SEED = int(os.environ.get("LORID_TEACH_SEED", "1"))
OUTAGE_S = float(os.environ.get("LORID_TEACH_OUTAGE_S", "3"))
STORE = os.environ.get("LORID_TEACH_STORE", "s3")
# "model": the driver, and another model's whole run before it is started again.
KINDS = (
    "worker", "driver", "desk", "model", "worker", "desk", "cluster", "worker", "desk", "worker",
)  # fmt: skip
ENDING = ("driver", "model", "cluster")
MAX_IN_FLIGHT = 32
# On its way is also what came and is not durable yet: the next request does not wait for the disk,
# and a bucket gets what gathered in an instant, at most so many, while the next gather.
MAX_ON_THE_WAY = MAX_IN_FLIGHT + (2 if STORE == "s3" else 1) * UPLOAD_RESPONSES
# Answers with these reach the ledger: they were paid for. The others are failures of the request.
PAID = USABLE | set(TEXT_FAULTS) | {"refusal", "content filter", "length"}


def victims(job: Job, kind: str) -> list[psutil.Process]:
    """Who is killed."""
    if kind in ("driver", "model"):
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


def kill(job: Job, kind: str) -> None:
    """Kill -9, until they are gone; Ray ends a dead driver's other processes, within seconds."""
    chosen = victims(job, kind)
    assert chosen, (kind, job.said())
    for process in chosen:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    if kind in ENDING:
        job.process.wait(timeout=60)
        job.end()
    else:
        psutil.wait_procs(chosen, timeout=30)


def run_with_kills(start: Callable[..., Job], server: Server, proxy: FaultProxy) -> list[Kill]:
    """The stage to its end, with kills on the way; what was killed and when."""
    chance = random.Random(SEED)
    kinds = [KINDS[number % len(KINDS)] for number in range(NUM_KILLS)]
    kills: list[Kill] = []
    job = start()
    for kind in kinds:
        some = chance.randint(1, NUM_PROBLEMS // (NUM_KILLS + 1))
        wait_for_requests(job, server, num=server.counts()["num_requests"] + some)
        assert job.is_running(), f"ended before all kills: {job.said()}"
        in_flight = server.counts()["in_flight"]
        kill(job, kind)
        # Until then the others may still have sent: what they had is on its way at this kill too.
        kills.append({"kind": kind, "at": time.time(), "in_flight": in_flight})
        if kind in ENDING:
            if kind == "model" and not any(entry["model"] == "other" for entry in server.log()):
                other = start("teacher.api.model=other")
                assert other.process.wait(timeout=600) == 0, other.said()
            job = start()
    if STORE == "s3":
        wait_for_requests(job, server, num=server.counts()["num_requests"] + 1)
        with proxy.gone():
            time.sleep(OUTAGE_S)
        assert job.is_running(), job.said()
    while job.process.wait(timeout=900):
        # A stage that could not mend itself says so, and goes on when it is started again.
        assert "run again to resume" in job.said(), job.said()
        kills.append({"kind": "gave up", "at": time.time(), "in_flight": 0})
        job = start()
    job.end()
    return kills


def repeats(log) -> list[dict[str, Any]]:
    """Requests whose answer was good enough to keep, and that were sent again all the same."""
    by_body = defaultdict(list)
    for entry in log:
        if entry["event"] == "received":
            by_body[entry["body"]].append(entry)
    return [
        entry for entries in by_body.values() for entry in entries[:-1] if entry["fault"] in PAID
    ]


@pytest.fixture
def store(request, tmp_path):
    """Where the run's artifacts and ledger are."""
    if STORE == "s3":
        return f"s3://{request.getfixturevalue('s3_bucket')}/teach"
    return str(tmp_path / "store")


@pytest.fixture
def jobs():
    """The jobs that a test starts; nothing of them stays when it fails."""
    started: list[Job] = []
    yield started
    for job in started:
        job.kill()


def test_kills_lose_no_response_and_pay_for_none_twice(tmp_path, store, jobs):
    write_problems(tmp_path, num=NUM_PROBLEMS)
    with FaultProxy(os.environ.get("AWS_ENDPOINT_URL", "http://127.0.0.1")) as proxy, (
        misbehaving_server(
            latency={"kind": "lognormal", "median_s": 0.15, "sigma": 0.5}, faults=FAULTS,
            stubborn=STUBBORN, max_faults_per_question=2, numbered_models=True, seed=SEED,
        )
    ) as server:  # fmt: skip
        write_config(tmp_path, server, store=store, api={"max_in_flight": MAX_IN_FLIGHT})
        prepare(tmp_path)

        def start(*overrides: str) -> Job:
            environment = {"AWS_ENDPOINT_URL": proxy.url}
            jobs.append(Job(tmp_path, overrides=overrides, environment=environment))
            return jobs[-1]

        kills = run_with_kills(start, server, proxy)
        log = server.log()
    responses = ledger_of(store)
    assert_nothing_durable_was_asked_again(log, responses)
    repeated = repeats(log)
    print(f"{len(kills)} kills, {len(responses)} responses, {len(repeated)} repeated: {kills}")
    # Each was on its way at a kill, and no kill costs more than may be on the way.
    marks = [entry["at"] for entry in kills]
    for start_at, end_at in zip([0.0, *marks], [*marks, float("inf")], strict=True):
        lost = sum(start_at <= entry["at"] < end_at for entry in repeated)
        assert lost <= (MAX_ON_THE_WAY if end_at < float("inf") else 0)
    for model in {entry["model"] for entry in log}:
        check_artifact(tmp_path, store, model=model, log=[e for e in log if e["model"] == model])


def check_artifact(folder: Path, store: str, *, model: str, log: list[dict[str, Any]]) -> None:
    """Every problem has this model's knowledge, or a reason."""
    (record,) = [
        record for record in knowledge_records(store) if record.inputs["teacher.api.model"] == model
    ]
    kept, rejects = outcomes(store, record, folder / model)
    assert len({entry["question"] for entry in log}) == NUM_PROBLEMS
    assert_own_knowledge(kept, model=model)
    assert len(kept) + len(rejects) == NUM_PROBLEMS
    assert all(rejects.values())
    readable = {e["question"] for e in log if e["event"] == "sent" and e["fault"] in USABLE}
    assert not {question_id(question) for question in rejects} & readable

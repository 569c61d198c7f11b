"""The endpoint when clients leave and processes die: real Ray Serve, vLLM and HTTP.

By hand, at full size: LORID_FAULT_QUESTIONS=64 pytest tests/cluster/test_endpoint_faults.py
The adapters are random, so that every text is as good as a fingerprint of its seed.
"""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from ray import serve
from ray.serve.config import HTTPOptions
from ray.util.state import list_actors
from small import free_port, random_triple

from lorid.artifacts.store import open_store
from lorid.batches import grade_all
from lorid.client import Client
from lorid.distributed.access import new_token
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import app_of_run
from lorid.errors import EndpointBusy

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(600)]
NUM_QUESTIONS = int(os.environ.get("LORID_FAULT_QUESTIONS", "16"))
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
CHANGES = {
    "sampling.max_new_tokens": 24,
    "feedback.max_rounds": 3,
    "engine.max_model_len": 256,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """URL and token of an endpoint."""
    folder = tmp_path_factory.mktemp("endpoint")
    store = open_store(str(folder / "store"))
    random_triple(store, folder / "triple", seed=1)
    token, line = new_token("tests")
    tokens_file = folder / "tokens"
    tokens_file.write_text(line + "\n")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        try:
            changes = {**CHANGES, "serving.tokens_file": str(tokens_file)}
            serve.run(app_of_run(f"{store.uri}#demo", overrides=changes), name="lorid")
            with Client(url, token) as client:
                client.wait_until_ready(timeout_s=180)
            yield url, token
        finally:
            serve.shutdown()


@pytest.fixture
def client(running):
    with Client(*running) as one:
        yield one


def status(client) -> dict:
    return client._http.get("/readyz").json()


def wait_until(check, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rationales(answer: dict) -> list:
    return [(one["intuitive"], one["knowledge"], one["deep"]) for one in answer["rounds"]]


def kill(part: str) -> None:
    """SIGKILL the process of one of Serve's actors."""
    (pid,) = {
        actor.pid
        for actor in list_actors(filters=[("state", "=", "ALIVE")], detail=True)
        if part in actor.class_name
    }
    os.kill(pid, signal.SIGKILL)


def test_a_client_that_leaves_frees_the_engine(running, client):
    url, token = running
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/x-ndjson"}
    items = [{"id": str(n), "question": f"{QUESTION} ({n})", "reference": "7"} for n in range(500)]
    body = {"items": items}
    with httpx.stream("POST", f"{url}/v1/grade", json=body, headers=headers, timeout=60) as stream:
        assert next(stream.iter_lines())
        assert status(client)["num_texts"] > 0
    wait_until(lambda: status(client)["num_questions"] == status(client)["num_texts"] == 0)
    long = {"question": QUESTION, "rule": "majority", "max_rounds": 100}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/solve", json=long, headers=headers, timeout=0.7)
    wait_until(lambda: status(client)["num_questions"] == status(client)["num_texts"] == 0)


def test_the_rest_of_a_batch_changes_no_result(client):
    alone = client.solve(QUESTION, seed=7)
    items = [{"id": str(n), "question": f"{QUESTION} ({n})", "reference": "7"} for n in range(63)]
    items.append({"id": "one", "question": QUESTION, "reference": "7"})
    graded = client.grade(items, seed=7, include_transcripts=True)["results"]
    (one,) = (row for row in graded if row["id"] == "one")
    assert one["transcript"]["rounds"] == alone["rounds"]


def ask_until_answered(client, seed: int) -> dict:
    """As a user would: a refusal or a lost connection is asked again."""
    deadline = time.monotonic() + 240
    while True:
        try:
            return client.solve(QUESTION, seed=seed)
        except EndpointBusy:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize("part", ["StudentEngine", "Ingress", "ProxyActor"])
def test_every_question_is_answered_right_through_a_kill(running, client, part):
    seeds = range(1000, 1000 + NUM_QUESTIONS)
    expected = {seed: rationales(client.solve(QUESTION, seed=seed)) for seed in seeds}
    killed = threading.Event()

    def ask(seed: int) -> list:
        answers = [rationales(ask_until_answered(client, seed))]
        while not killed.is_set():
            answers.append(rationales(ask_until_answered(client, seed)))
        return [*answers, rationales(ask_until_answered(client, seed))]

    with ThreadPoolExecutor(NUM_QUESTIONS) as pool:
        futures = {seed: pool.submit(ask, seed) for seed in seeds}
        wait_until(lambda: status(client)["num_questions"] >= NUM_QUESTIONS // 2)
        kill(part)
        began = time.monotonic()
        killed.set()
        for seed, future in futures.items():
            assert all(answer == expected[seed] for answer in future.result())
    print(f"{part}: {NUM_QUESTIONS} in flight, all right after {time.monotonic() - began:.1f} s")


def test_a_batch_goes_on_through_a_kill(running, client):
    items = [
        {"id": str(n), "question": f"{QUESTION} ({n % 9})", "reference": "7"}
        for n in range(2 * NUM_QUESTIONS)
    ]
    rows = grade_all(client, items, seed=7, items_per_request=NUM_QUESTIONS)
    first = next(rows)
    kill("StudentEngine")
    kept = [first, *rows]
    assert sorted(row["id"] for row in kept) == sorted(item["id"] for item in items)
    assert not [row for row in kept if row["error"]]

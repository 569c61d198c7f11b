"""A running endpoint follows its alias under load: no request fails, every answer names its triple.

Real Ray Serve, vLLM and HTTP; the adapters are random, so that what they write differs. By hand,
with an engine for each role: LORID_LAYOUTS=1 pytest tests/cluster/test_triple_swap.py
"""

import os
import threading
import time
from collections import Counter

import pytest
from free_ports import free_port
from ray import serve
from ray.serve.config import HTTPOptions
from small import random_triple

from lorid.artifacts.aliases import promote, rollback
from lorid.artifacts.store import open_store
from lorid.client import Client
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import app_of_run

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(600)]
IS_FULL = os.environ.get("LORID_LAYOUTS") == "1"
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
NUM_CLIENTS = 6
CHANGES = {
    "sampling.max_new_tokens": 24,
    "feedback.max_rounds": 3,
    "engine.max_model_len": 256,
    "serving.alias_poll_s": 0.5,
    "engine.num_cpus": 0.3,
}


class Load:
    """Clients that ask without a pause; what came back is counted by triple."""

    def __init__(self, url: str) -> None:
        self.url, self.stopped = url, threading.Event()
        self.answers: list[dict] = []
        self.failures: list[Exception] = []
        self.threads = [threading.Thread(target=self.ask_on, args=(n,)) for n in range(NUM_CLIENTS)]

    def ask_on(self, number: int) -> None:
        with Client(self.url) as client:
            seed = 1000 * number
            while not self.stopped.is_set():
                seed += 1
                try:
                    self.answers.append({"seed": seed, **client.solve(QUESTION, seed=seed)})
                except Exception as error:
                    self.failures.append(error)
                    return

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def wait_for(self, triple: str, *, count: int) -> None:
        """Until that triple has given so many of the answers that come from now on."""
        begin, deadline = len(self.answers), time.monotonic() + 120
        while sum(answer["triple"] == triple for answer in self.answers[begin:]) < count:
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, Counter(one["triple"] for one in self.answers)
            time.sleep(0.1)


def rationales(answer: dict) -> list:
    return [(one["intuitive"], one["knowledge"], one["deep"]) for one in answer["rounds"]]


@pytest.mark.parametrize(
    "layout",
    [
        "shared",
        pytest.param("split", marks=pytest.mark.skipif(not IS_FULL, reason="LORID_LAYOUTS=1")),
    ],
)
def test_a_promotion_and_a_rollback_under_load(tmp_path, layout):
    store = open_store(str(tmp_path / "store"))
    old = random_triple(store, tmp_path / "old", seed=1)
    new = random_triple(store, tmp_path / "new", seed=2)
    larger = random_triple(store, tmp_path / "larger", seed=3, rank=16)
    promote(store, "production", old.address)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    changes = {**CHANGES, "serving.layout": layout}
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        try:
            serve.run(app_of_run(f"{store.uri}@production", overrides=changes), name="lorid")
            with Client(url) as client:
                client.wait_until_ready(timeout_s=180)
                before = client.solve(QUESTION, seed=7)
                with Load(url) as load:
                    load.wait_for(old.address, count=12)
                    promote(store, "production", new.address)
                    load.wait_for(new.address, count=12)
                    after = client.solve(QUESTION, seed=7)
                    # Refused: the engine was started for rank 8. The one before goes on.
                    promote(store, "production", larger.address)
                    status = wait_for_refusal(client, larger.address)
                    assert "serving.max_adapter_rank=16" in status["refused_because"]
                    load.wait_for(new.address, count=6)
                    rollback(store, "production")
                    rollback(store, "production")
                    load.wait_for(old.address, count=12)
                    again = client.solve(QUESTION, seed=7)
        finally:
            serve.shutdown()
    assert not load.failures
    # Not only the name: what is written is what that triple writes.
    assert (before["triple"], after["triple"]) == (old.address, new.address)
    assert rationales(again) == rationales(before) != rationales(after)
    assert {answer["triple"] for answer in load.answers} == {old.address, new.address}
    texts = {}
    for answer in load.answers:
        key = (answer["seed"], answer["triple"])
        assert texts.setdefault(key, rationales(answer)) == rationales(answer)


def wait_for_refusal(client: Client, address: str) -> dict:
    deadline = time.monotonic() + 60
    while True:
        status = client._http.get("/readyz").json()
        if status["refused"] == address:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)

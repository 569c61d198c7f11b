"""Real Serve and HTTP around an engine that takes its time: more comes than can be answered.

By hand, at full size: LORID_OVERLOAD_S=120 pytest tests/cluster/test_overload.py -s
"""

import asyncio
import os
import time
from collections import Counter

import httpx
import psutil
import pytest
from pacing import Paced
from ray import serve
from ray.serve.config import HTTPOptions
from ray.util.state import list_actors
from small import free_port

from lorid.client import Client
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import build_app
from lorid.distributed.sources import TripleFiles, Wanted
from lorid.presets import demo

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
SECONDS = float(os.environ.get("LORID_OVERLOAD_S", "4"))
TEXT_S, NUM_SLOTS = 0.1, 4
# A question is two texts one after the other.
CAPACITY = NUM_SLOTS / (2 * TEXT_S)
TIMES_TOO_MANY = 10
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
MIB = 1024**2


class OneTriple:
    """A source of one triple without files."""

    def wanted(self) -> Wanted:
        return Wanted(address="triple/demo/0123456789ab")

    def earlier(self) -> list[Wanted]:
        return []

    def fetch(self, address: str) -> TripleFiles:
        return TripleFiles(address=address, folders={}, config=demo().endpoint())


@pytest.fixture(scope="module")
def url():
    config = demo()
    serving = config.serving.model_copy(
        update={
            "max_concurrent_questions": NUM_SLOTS,
            "max_queued_questions": 2 * NUM_SLOTS,
            "drain_timeout_s": 20,
        }
    )
    config = config.model_copy(update={"serving": serving})
    port = free_port()
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        try:
            app = build_app(config, source=OneTriple(), factory=Paced(TEXT_S))
            serve.run(app, name="lorid")
            with Client(f"http://127.0.0.1:{port}") as client:
                client.wait_until_ready(timeout_s=60)
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()


def memory() -> dict[str, int]:
    """Resident bytes of each of the graph's processes."""
    actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    names = ("Ingress", "StudentEngine", "ProxyActor")
    return {
        name: psutil.Process(actor.pid).memory_info().rss
        for actor in actors
        for name in names
        if name in actor.class_name
    }


async def flood(url: str, *, seconds: float) -> tuple[Counter[int], list[float]]:
    """Ten times what can be answered; statuses, and how long refusals took."""
    statuses: Counter[int] = Counter()
    refusals: list[float] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        began = time.monotonic()
        response = await client.post("/v1/solve", json={"question": QUESTION, "seed": number})
        statuses[response.status_code] += 1
        if response.status_code == 429:
            assert int(response.headers["retry-after"]) >= 1
            refusals.append(time.monotonic() - began)

    async with httpx.AsyncClient(
        base_url=url, timeout=60, limits=limits, trust_env=False
    ) as client:
        begin, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - begin) < seconds:
                while number < now * CAPACITY * TIMES_TOO_MANY:
                    number += 1
                    group.create_task(ask(client, number))
                await asyncio.sleep(0.005)
    return statuses, sorted(refusals)


def test_what_is_too_much_is_refused_and_the_rest_is_served(url):
    asyncio.run(flood(url, seconds=1))
    before = memory()
    statuses, refusals = asyncio.run(flood(url, seconds=SECONDS))
    after = memory()
    assert statuses.keys() == {200, 429}
    # What waits at the end is answered after it.
    num_expected = CAPACITY * SECONDS
    num_waiting = 3 * NUM_SLOTS
    growth = {name: (after[name] - before[name]) / MIB for name in before}
    print(
        f"{SECONDS:.0f} s: {statuses[200]} of {num_expected:.0f} (+{num_waiting}) served, "
        f"{statuses[429]} refused, p50 {1000 * refusals[len(refusals) // 2]:.1f} ms, "
        f"p99 {1000 * refusals[len(refusals) * 99 // 100]:.1f} ms; "
        f"MiB more: { {name: round(value, 1) for name, value in growth.items()} }"
    )
    assert statuses[200] >= 0.9 * num_expected
    assert all(value < 64 for value in growth.values())


def num_inside(url: str) -> tuple[int, int]:
    status = httpx.get(f"{url}/readyz", trust_env=False).json()
    return status["num_questions"], status["num_texts"]


def test_a_client_that_leaves_frees_the_engine(url):
    items = [{"id": str(n), "question": QUESTION, "reference": "7"} for n in range(1000)]
    with Client(url) as client:
        stream = client.grade_stream(items)
        began = time.monotonic()
        assert next(stream)["verdict"] == "correct"
        # Long before the batch is done.
        assert time.monotonic() - began < 0.5 * 1000 / CAPACITY
        assert num_inside(url) > (0, 0)
        stream.close()
        deadline = time.monotonic() + 30
        while num_inside(url) != (0, 0):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_runs_ends_when_the_endpoint_is_deleted(url):
    """The last one: the endpoint is gone after it."""

    async def solve_and_delete() -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            body = {"question": QUESTION, "rule": "majority", "max_rounds": 10}
            asked = asyncio.create_task(client.post("/v1/solve", json=body))
            while num_inside(url) == (0, 0):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(serve.delete, "lorid")
            return await asked

    response = asyncio.run(solve_and_delete())
    assert response.status_code == 200
    assert response.json()["num_rounds"] == 10

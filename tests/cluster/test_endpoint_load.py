"""Real Serve and HTTP when more comes than can be answered, clients leave and processes die.

The engine is scripted and takes its time; its texts tell question and seed, so that a wrong or
mixed answer shows. By hand, at full size and with vLLM in its place (its adapters are random, so
that a text is as good as a fingerprint of its seed):

    LORID_OVERLOAD_S=120 pytest tests/cluster/test_endpoint_load.py -s
    LORID_FAULT_ENGINE=vllm LORID_FAULT_QUESTIONS=64 pytest tests/cluster/test_endpoint_load.py -s
    RAY_SERVE_ENABLE_HA_PROXY=0 pytest tests/cluster/test_endpoint_load.py -s   # Serve's own proxy
"""

import asyncio
import json
import os
import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import grpc
import httpx
import pacing
import psutil
import pytest
from free_ports import free_port
from ray import cloudpickle, serve
from ray.serve import Application
from ray.serve.config import HTTPOptions
from ray.serve.generated.serve_pb2 import ASGIRequest
from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub
from small import process_of, random_triple

from lorid.artifacts.store import open_store
from lorid.batches import grade_all
from lorid.client import Client
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import app_of_run, build_app, drain
from lorid.errors import EndpointBusy
from lorid.presets import demo

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
SECONDS = float(os.environ.get("LORID_OVERLOAD_S", "4"))
TEXT_S, NUM_SLOTS = 0.1, 4
# A question is two texts one after the other.
CAPACITY = NUM_SLOTS / (2 * TEXT_S)
TIMES_TOO_MANY = 10
NUM_QUESTIONS = int(os.environ.get("LORID_FAULT_QUESTIONS", "12"))
IS_HAPROXY = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY", "1") == "1"
PROXY = "/haproxy" if IS_HAPROXY else "ProxyActor"
# Ray takes half a minute to notice that a proxy is gone: at full size only.
SLOW = [PROXY, "ServeController"] if NUM_QUESTIONS > 12 else []
KILLED = ("StudentEngine", "Ingress", *SLOW)
IS_REAL = os.environ.get("LORID_FAULT_ENGINE") == "vllm"
CHANGES = {
    "sampling.max_new_tokens": 24,
    "feedback.max_rounds": 3,
    "engine.max_model_len": 256,
}
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
MIB = 1024**2
# The replicas' processes do not know the folder of the tests.
cloudpickle.register_pickle_by_value(pacing)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A running endpoint, around the engine that is asked for."""
    port = free_port()
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        try:
            serve.run(made_app(tmp_path_factory.mktemp("endpoint")), name="lorid")
            url = f"http://127.0.0.1:{port}"
            with Client(url) as client:
                client.wait_until_ready(timeout_s=180)
            yield url
        finally:
            serve.shutdown()


def made_app(folder: Path) -> Application:
    if IS_REAL:
        store = open_store(str(folder / "store"))
        random_triple(store, folder / "triple", seed=1)
        return app_of_run(f"{store.uri}#demo", overrides=CHANGES)
    config = demo()
    serving = config.serving.model_copy(
        update={
            "max_concurrent_questions": NUM_SLOTS,
            "max_queued_questions": max(2 * NUM_SLOTS, NUM_QUESTIONS),
            "drain_timeout_s": 20,
        }
    )
    config = config.model_copy(update={"serving": serving})
    return build_app(config, source=pacing.OneTriple(), factory=pacing.Paced(TEXT_S))


def memory() -> dict[str, int]:
    """Resident bytes of each of the graph's processes."""
    return {
        part: process_of(part).memory_info().rss for part in ("Ingress", "StudentEngine", PROXY)
    }


async def flood(url: str, *, seconds: float) -> tuple[Counter[int], list[float]]:
    """Ten times what can be answered; statuses, and how long refusals took."""
    statuses: Counter[int] = Counter()
    refusals: list[float] = []

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        body = {"question": QUESTION, "seed": number}
        async with session.post(f"{url}/v1/solve", json=body) as response:
            await response.read()
        statuses[response.status] += 1
        if response.status == 429:
            assert int(response.headers["retry-after"]) >= 1
            refusals.append(time.monotonic() - began)

    # httpx spends more on a request than the endpoint on a refusal.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        begin, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - begin) < seconds:
                while number < now * CAPACITY * TIMES_TOO_MANY:
                    number += 1
                    group.create_task(ask(session, number))
                await asyncio.sleep(0.005)
    return statuses, sorted(refusals)


@pytest.mark.skipif(IS_REAL, reason="the capacity of a real engine is not known beforehand")
def test_what_is_too_much_is_refused_and_the_rest_is_served(url):
    asyncio.run(flood(url, seconds=1))
    before = memory()
    statuses, refusals = asyncio.run(flood(url, seconds=SECONDS))
    after = memory()
    assert statuses.keys() == {200, 429}
    # What waits at the end is answered after it.
    num_expected = CAPACITY * SECONDS
    num_waiting = NUM_SLOTS + max(2 * NUM_SLOTS, NUM_QUESTIONS)
    growth = {name: (after[name] - before[name]) / MIB for name in before}
    print(
        f"{SECONDS:.0f} s: {statuses[200]} of {num_expected:.0f} (+{num_waiting}) served, "
        f"{statuses[429]} refused, p50 {1000 * refusals[len(refusals) // 2]:.1f} ms, "
        f"p99 {1000 * refusals[len(refusals) * 99 // 100]:.1f} ms; "
        f"MiB more: { {name: round(value, 1) for name, value in growth.items()} }"
    )
    assert statuses[200] >= 0.9 * num_expected
    # No answer can be so quick.
    assert refusals[len(refusals) // 2] < 2 * TEXT_S
    assert all(value < 64 for value in growth.values())


class Touch:
    """A pickle that leaves a file where it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def call_replicas(part: str, pickled: bytes, *, token: str | None) -> Counter[grpc.StatusCode]:
    """Send it to every port of the part's process, as another replica would; how each answers."""
    codes: Counter[grpc.StatusCode] = Counter()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    for one in process_of(part).net_connections("tcp"):
        if one.status != psutil.CONN_LISTEN:
            continue
        with grpc.insecure_channel(f"127.0.0.1:{one.laddr.port}") as channel:
            call = ASGIServiceStub(channel).HandleRequest
            try:
                call(ASGIRequest(pickled_request_metadata=pickled), metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                codes[error.code()] += 1
            else:
                codes[grpc.StatusCode.OK] += 1
    return codes


@pytest.mark.parametrize("part", ["Ingress", "StudentEngine"])
def test_replicas_hear_nobody_without_rays_token(url, part, tmp_path):
    """Serve's replicas call each other with pickles."""
    for number, token in enumerate((None, "0" * 64)):
        path = tmp_path / str(number)
        codes = call_replicas(part, pickle.dumps(Touch(path)), token=token)
        assert codes[grpc.StatusCode.UNAUTHENTICATED] >= 1
        assert grpc.StatusCode.OK not in codes
        assert not path.exists()
    path = tmp_path / "trusted"
    call_replicas(part, pickle.dumps(Touch(path)), token=os.environ["RAY_AUTH_TOKEN"])
    assert path.exists(), "what was sent would have been read"


def num_inside(url: str) -> tuple[int, int]:
    status = httpx.get(f"{url}/readyz", trust_env=False).json()
    return status["num_questions"], status["num_texts"]


def test_a_client_that_leaves_frees_the_engine(url):
    items = [{"id": str(n), "question": QUESTION, "reference": "7"} for n in range(1000)]
    with Client(url) as client:
        stream = client.grade_stream(items)
        began = time.monotonic()
        assert next(stream)["error"] is None
        # Long before the batch is done.
        assert IS_REAL or time.monotonic() - began < 0.5 * 1000 / CAPACITY
        assert num_inside(url) > (0, 0)
        stream.close()
        deadline = time.monotonic() + 30
        while num_inside(url) != (0, 0):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while not (audited := audit("/v1/grade")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    (line,) = audited
    assert (line["status"], line["left"]) == (200, True)
    assert "error" not in line


def log_of(part: str) -> list[str]:
    """The lines of a replica's own log."""
    (folder,) = {
        Path(one.path).parent
        for one in process_of("Ingress").open_files()
        if Path(one.path).parent.name == "serve"
    }
    # The file that was written last: a replica that was killed has left one too.
    log = max(folder.glob(f"replica_lorid_{part}_*.log"), key=lambda path: path.stat().st_mtime)
    return log.read_text().splitlines()


def test_a_request_is_one_line_of_the_logs(url):
    name = "the-one-line-of-this-request"
    headers = {"x-request-id": name}
    answer = httpx.post(f"{url}/v1/solve", json={"question": QUESTION}, headers=headers, timeout=60)
    assert answer.status_code == 200
    deadline = time.monotonic() + 30
    while not (lines := [line for line in log_of("Ingress") if name in line]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(lines) == 1
    lines = log_of("Ingress") + log_of("StudentEngine")
    assert not [line for line in lines if "CALL " in line or "POST /v1/solve" in line]


def audit(route: str) -> list[dict]:
    """The audit log's lines of that route, from the ingress's own log."""
    found = []
    for text in log_of("Ingress"):
        if '"request_id"' in text and "{" in text:
            found.append(json.loads(text[text.index("{") :]))
    return [line for line in found if line["route"] == route]


def rationales(answer: dict) -> list:
    return [(one["intuitive"], one["knowledge"], one["deep"]) for one in answer["rounds"]]


def ask_until_answered(client: Client, seed: int) -> list:
    """As a user would: a refusal or a lost connection is asked again."""
    deadline = time.monotonic() + 240
    while True:
        try:
            return rationales(client.solve(QUESTION, seed=seed))
        except EndpointBusy:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("part", KILLED)
def test_every_question_is_answered_right_through_a_kill(url, part):
    seeds = range(1000, 1000 + NUM_QUESTIONS)
    is_killed = threading.Event()

    def ask(seed: int) -> list[list]:
        """Until the kill, once through it, and once after it."""
        answers = []
        while not is_killed.is_set():
            answers.append(ask_until_answered(client, seed))
        return [*answers, ask_until_answered(client, seed)]

    with Client(url) as client, ThreadPoolExecutor(NUM_QUESTIONS) as pool:
        expected = dict(
            zip(seeds, pool.map(lambda seed: ask_until_answered(client, seed), seeds), strict=True)
        )
        assert len({str(answer) for answer in expected.values()}) == NUM_QUESTIONS
        futures = {seed: pool.submit(ask, seed) for seed in seeds}
        while num_inside(url)[0] < NUM_QUESTIONS // 2:
            time.sleep(0.01)
        process_of(part).kill()
        began = time.monotonic()
        is_killed.set()
        for seed, future in futures.items():
            assert all(answer == expected[seed] for answer in future.result())
    print(f"{part}: {NUM_QUESTIONS} in flight; all right after {time.monotonic() - began:.1f} s")


def test_a_batch_goes_on_through_a_kill(url):
    items = [
        {"id": str(n), "question": f"{QUESTION} ({n})", "submission": "7"}
        for n in range(4 * NUM_QUESTIONS)
    ]
    with Client(url) as client:
        rows = grade_all(client, items, seed=7, items_per_request=2 * NUM_QUESTIONS)
        first = next(rows)
        process_of("StudentEngine").kill()
        kept = [first, *rows]
    assert sorted(row["id"] for row in kept) == sorted(item["id"] for item in items)
    assert not [row for row in kept if row["error"]]


def test_what_runs_ends_when_the_endpoint_goes_away(url):
    """The last one: the endpoint is gone after it."""

    async def solve_and_go() -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            body = {"question": QUESTION, "rule": "majority", "max_rounds": 10}
            asked = asyncio.create_task(client.post("/v1/solve", json=body))
            while num_inside(url) == (0, 0):
                await asyncio.sleep(0.01)
            await asyncio.to_thread(drain)
            late = await client.post("/v1/solve", json=body)
            assert (late.status_code, late.json()["error"]["type"]) == (503, "draining")
            assert int(late.headers["retry-after"]) >= 1
            await asyncio.to_thread(serve.delete, "lorid")
            return await asked

    response = asyncio.run(solve_and_go())
    assert response.status_code == 200
    assert response.json()["num_rounds"] == 10

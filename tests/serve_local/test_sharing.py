"""Slots that singles and items of batches share, and the doors in front of them."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient
from scripting import NoStore, script, small_config, texts

from lorid.api import SolveRequest
from lorid.distributed.admission import Admission, Refused
from lorid.distributed.sharing import LINGER_S, SharedSlots
from lorid.distributed.student import StudentEngine
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"


class Users:
    """Takes slots in an order, and gives them back when told."""

    def __init__(self, slots: SharedSlots) -> None:
        self.slots = slots
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task] = {}
        self.inside: list[str] = []

    async def come(self, *names: str) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self.use(name))
            await self.settle()

    async def use(self, name: str) -> None:
        async with self.slots.take(is_item=name.startswith("item")):
            self.inside.append(name)
            await self.ends[name].wait()
            self.inside.remove(name)

    async def go(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


async def test_items_take_everything_while_nobody_else_is_there(clock):
    users = Users(SharedSlots(4, batch_share=0.25, clock=clock))
    await users.come("item1", "item2", "item3", "item4", "item5")
    assert users.inside == ["item1", "item2", "item3", "item4"]
    await users.go("item1")
    assert users.inside == ["item2", "item3", "item4", "item5"]


async def test_a_single_goes_first_and_items_keep_to_their_share_while_it_is_there(clock):
    users = Users(SharedSlots(4, batch_share=0.5, clock=clock))
    await users.come("item1", "item2", "item3", "item4", "item5", "item6", "single")
    await users.go("item1")
    assert users.inside == ["item2", "item3", "item4", "single"]
    # Two items are their share: what ends above it is not followed by another.
    await users.go("item2")
    assert users.inside == ["item3", "item4", "single"]
    await users.go("item3")
    assert users.inside == ["item4", "single", "item5"]
    await users.go("single")
    # Not at once: singles seldom come alone.
    assert users.inside == ["item4", "item5"]
    clock.now += 2 * LINGER_S
    await users.go("item4")
    assert users.inside == ["item5", "item6"]


async def test_items_come_back_by_themselves_when_no_single_came_for_a_while(clock, monkeypatch):
    monkeypatch.setattr("lorid.distributed.sharing.LINGER_S", 0.02)
    users = Users(SharedSlots(2, batch_share=0.5))
    await users.come("item1", "single", "item2")
    await users.go("single")
    async with asyncio.timeout(20):
        while "item2" not in users.inside:
            await asyncio.sleep(0.01)


async def test_a_batch_always_moves_even_if_singles_never_end(clock):
    users = Users(SharedSlots(3, batch_share=0.01, clock=clock))
    await users.come("single1", "single2", "item1", "item2")
    assert users.inside == ["single1", "single2", "item1"]
    await users.go("item1")
    assert users.inside == ["single1", "single2", "item2"]


@pytest.mark.parametrize("waiting", ["single2", "item2"])
async def test_who_leaves_while_waiting_takes_no_slot(clock, waiting):
    users = Users(SharedSlots(1, batch_share=1, clock=clock))
    await users.come("single1", waiting, "single3")
    users.tasks[waiting].cancel()
    await users.settle()
    await users.go("single1")
    assert users.inside == ["single3"]
    await users.go("single3")
    assert (users.slots.num_singles, users.slots.num_items, users.slots.num_waiting) == (0, 0, 0)


async def test_who_leaves_as_the_slot_comes_passes_it_on(clock):
    users = Users(SharedSlots(1, batch_share=1, clock=clock))
    await users.come("single1", "single2", "single3")
    users.ends["single1"].set()
    await asyncio.sleep(0)
    # The slot is promised to single2 and not taken yet, or about to be.
    users.tasks["single2"].cancel()
    await users.settle()
    assert users.inside == ["single3"]


async def test_texts_of_a_batch_give_way_between_two_texts():
    """A single's text is written although items, who were there first, would fill the engine."""
    config = small_config()
    config = config.model_copy(
        update={
            "engine": config.engine.model_copy(update={"max_num_seqs": 4}),
            "serving": config.serving.model_copy(update={"batch_share": 0.25}),
        }
    )
    more = asyncio.Event()
    running: list[str] = []
    side_by_side: list[int] = []

    async def write(request):
        running.append(request.question)
        if more.is_set() and not single.done():
            side_by_side.append(sum(one != "single" for one in running))
        await more.wait()
        await asyncio.sleep(0)
        running.remove(request.question)
        return "--> 7 END"

    engine = ScriptedEngine({role: write for role in Role})
    student = StudentEngine(
        config.endpoint().model_dump_json(), lambda _: engine, NoStore(config), follows=False
    )
    batch = [
        asyncio.create_task(student.solve(SolveRequest(question=f"item {n}"), is_item=True))
        for n in range(8)
    ]
    while len(running) < 4:
        await asyncio.sleep(0)
    single = asyncio.create_task(student.solve(SolveRequest(question="single")))
    while student.slots.num_singles == 0:
        await asyncio.sleep(0)
    more.set()
    await single
    # The four that were begun end; after them a quarter of the engine is the items'.
    assert max(side_by_side) == 1
    await asyncio.gather(*batch)


def test_too_many_are_refused_at_once_and_told_when_to_come_back():
    admission = Admission({"question": 2, "batch": 1})
    with admission.admit("question"), admission.admit("question"):
        with pytest.raises(Refused) as refused, admission.admit("question"):
            pass
        assert (refused.value.status, refused.value.retry_after_s) == (429, 1)
        with admission.admit("batch"):
            pass
    with admission.admit("question"):
        pass
    admission.is_draining = True
    with pytest.raises(Refused) as refused, admission.admit("question"):
        pass
    assert (refused.value.status, refused.value.kind) == (503, "draining")


def test_a_full_endpoint_answers_429_before_it_reads_the_body(endpoint):
    may_end = threading.Event()
    num_writing = threading.Semaphore(0)

    async def write(request):
        num_writing.release()
        await asyncio.to_thread(may_end.wait)
        return "--> 7 END"

    engine = ScriptedEngine({role: write for role in Role})
    limits = {"max_concurrent_questions": 1, "max_queued_questions": 1, "max_batches": 1}
    client = endpoint(engine, serving=limits)
    item = {"id": "a", "question": QUESTION, "reference": "7"}
    with client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.post, "/v1/solve", json={"question": QUESTION}) for _ in "12"]
        asked.append(pool.submit(client.post, "/v1/grade", json={"items": [item]}))
        num_writing.acquire()
        while not is_full(client):
            pass
        read = []

        def body():
            read.append(1)
            yield b"{}"

        for route in ("/v1/solve", "/v1/chat/completions", "/v1/grade"):
            response = client.post(route, content=body())
            assert response.status_code == 429
            assert response.json()["error"]["type"] == "too_many_requests"
            assert int(response.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200
        may_end.set()
        assert [one.result().status_code for one in asked] == [200, 200, 200]
        assert client.post("/v1/solve", json={"question": QUESTION}).status_code == 200


def is_full(client) -> bool:
    lines = client.get("/metrics").text.splitlines()
    wanted = {"question": 2.0, "batch": 1.0}
    return all(
        f'lorid_requests_inside{{kind="{kind}"}} {number}' in lines
        for kind, number in wanted.items()
    )


def test_a_draining_endpoint_finishes_what_runs_and_refuses_the_rest(web):
    may_end = threading.Event()
    has_begun = threading.Event()

    async def write(request):
        has_begun.set()
        await asyncio.to_thread(may_end.wait)
        return "--> 7 END"

    app = web(
        ScriptedEngine({role: write for role in Role}), serving={"max_concurrent_questions": 1}
    )
    items = [{"id": str(n), "question": QUESTION, "reference": "7"} for n in range(6)]
    with TestClient(app) as client, ThreadPoolExecutor(1) as pool:
        graded = pool.submit(client.post, "/v1/grade", json={"items": items})
        has_begun.wait()
        while "lorid_items_inside 2.0" not in client.get("/metrics").text:
            pass
        app.admission.is_draining = True
        response = client.post("/v1/solve", json={"question": QUESTION})
        assert (response.status_code, response.json()["error"]["type"]) == (503, "draining")
        assert int(response.headers["retry-after"]) >= 1
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        may_end.set()
        results = graded.result().json()["results"]
    # Two had been handed over; the rest is for another endpoint.
    kinds = [result["error_type"] for result in results]
    assert kinds.count(None) == 2
    assert kinds.count("draining") == 4


def test_one_question_alone_is_not_slowed_by_slots(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    client = endpoint(engine, serving={"max_concurrent_questions": 1, "max_queued_questions": 0})
    for _ in range(3):
        assert client.post("/v1/solve", json={"question": QUESTION}).status_code == 200

"""The batch API: results, failed lines, and restarts at every point, against the local server."""

import asyncio

import pytest
from misbehaving_server import misbehaving_server
from pydantic import SecretStr

from lorid.artifacts.local import LocalStore
from lorid.config import TeacherConfig
from lorid.teacher.base import TeacherRequest
from lorid.teacher.batch import BatchTeacher, Journal, read_results
from lorid.teacher.failures import Failed

IDENTITY = {"model": "m"}
GOOD = {"batch_s": 0.1, "batch_faults": {}, "faults": {}, "stubborn": {}}


@pytest.fixture(scope="module")
def only_server():
    with misbehaving_server(**GOOD) as server:
        yield server


@pytest.fixture
def server(only_server):
    only_server.change(**GOOD)
    return only_server


@pytest.fixture
def teachers(server, tmp_path):
    """Makes teachers over one journal: each is another process's."""

    def make(**batch):
        config = TeacherConfig.model_validate(
            {
                "kind": "batch",
                "api": {"model": "m", "base_url": server.url},
                "batch": {"gather_s": 0.05, "poll_s": 0.05, **batch},
            }
        )
        return BatchTeacher(
            config, key=SecretStr("k"), identity=IDENTITY,
            journal=Journal(LocalStore(tmp_path), name="run"),
        )  # fmt: skip

    return make


def requests(start, num):
    return [
        TeacherRequest(prompt=f"Question: number {start + n} of all?\n\n", temperature=0.2, seed=1)
        for n in range(num)
    ]


async def ask_all(teacher, wanted):
    return await asyncio.gather(*map(teacher.ask, wanted), return_exceptions=True)


def num_batches(server):
    return len({event["number"] for event in server.log() if event["event"] == "received"})


async def test_all_that_gathers_goes_in_one_batch_and_each_ask_gets_its_own(server, teachers):
    teacher, wanted = teachers(), requests(0, 20)
    replies = await ask_all(teacher, wanted)
    await teacher.aclose()
    assert {reply.finish_reason for reply in replies} == {"stop"}
    assert len({reply.text for reply in replies}) == 20
    assert len(teacher.journal.read()) == 1
    assert replies[3].usage.output_tokens > 0


async def test_a_batch_is_sent_when_it_is_full(server, teachers):
    teacher = teachers(max_requests=8, gather_s=60)
    await ask_all(teacher, requests(100, 16))
    await teacher.aclose()
    assert [len(sent.keys) for sent in teacher.journal.read()] == [8, 8]


async def test_lines_that_fail_or_are_missing_are_passing_failures(server, teachers):
    server.change(batch_faults={"line 500": 0.3, "line missing": 0.3})
    teacher, wanted = teachers(), requests(200, 40)
    replies = await ask_all(teacher, wanted)
    failed = [n for n, reply in enumerate(replies) if isinstance(reply, Failed)]
    assert 5 < len(failed) < 35
    assert {replies[n].failure.kind for n in failed} == {"passing"}
    reasons = {replies[n].failure.reason.split(":")[0] for n in failed}
    assert reasons == {"the server answered 500 x", "the batch ended without this line"}
    server.change(batch_faults={})
    # Asked again they go into a new batch, not back to the old one.
    again = await ask_all(teacher, [wanted[n] for n in failed])
    await teacher.aclose()
    assert not [reply for reply in again if isinstance(reply, Exception)]


@pytest.mark.parametrize(("fault", "kind"), [("failed", "refused"), ("expired", "passing")])
async def test_a_batch_that_ends_badly_says_so_for_every_line(server, teachers, fault, kind):
    server.change(batch_faults={fault: 1.0})
    teacher = teachers()
    replies = await ask_all(teacher, requests(300, 10))
    await teacher.aclose()
    failed = [reply for reply in replies if isinstance(reply, Failed)]
    assert {reply.failure.kind for reply in failed} == {kind}
    assert len(failed) == (10 if fault == "failed" else 5)


@pytest.mark.parametrize("lost", ["nothing", "the id", "the results"])
async def test_a_restart_waits_for_the_batch_that_was_sent_and_pays_for_no_other(
    server, teachers, monkeypatch, lost
):
    before = num_batches(server)
    server.change(batch_s=0.5 if lost != "the results" else 0.0)
    first, wanted = teachers(), requests({"nothing": 400, "the id": 500}.get(lost, 600), 10)
    if lost == "the id":
        write = first.journal.write
        monkeypatch.setattr(
            first.journal, "write", lambda sent: None if sent.batch_id else write(sent)
        )
    if lost == "the results":
        await ask_all(first, wanted)
    else:
        asking = asyncio.ensure_future(ask_all(first, wanted))
        while num_batches(server) < before + 10:
            await asyncio.sleep(0.02)
        asking.cancel()
    await first.aclose()
    second = teachers()
    replies = await ask_all(second, wanted)
    await second.aclose()
    assert not [reply for reply in replies if isinstance(reply, Exception)]
    assert num_batches(server) == before + 10
    assert len(second.journal.read()) == 1


async def test_a_crash_before_the_batch_was_made_leaves_its_lines_to_a_new_one(server, teachers):
    before = num_batches(server)
    first, wanted = teachers(), requests(700, 5)
    first._create = lambda sent: asyncio.sleep(60)  # the process dies here
    asking = asyncio.ensure_future(ask_all(first, wanted))
    while not first.journal.read():
        await asyncio.sleep(0.02)
    asking.cancel()
    await first.aclose()
    second = teachers()
    failed = await ask_all(second, wanted)
    # The window asks again, as for every passing failure.
    assert {reply.failure.kind for reply in failed} == {"passing"}
    assert not [r for r in await ask_all(second, wanted) if isinstance(r, Exception)]
    await second.aclose()
    assert num_batches(server) == before + 5


def test_lines_of_no_use_are_passed_over():
    content = (
        b'\n{"custom_id": "a", "response": {"status_code": 429, "body": {}}}\nnull\n{"x": 1}\n'
    )
    content += b'{"custom_id": "b", "response": null, "error": {"code": "batch_expired"}}\n{"cus'
    results = read_results(content)
    assert set(results) == {"a", "b"}
    assert results["a"].kind == "throttled"
    assert "batch_expired" in results["b"].reason

"""Window, desk and API teacher in one process, against a server that misbehaves."""

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from misbehaving_server import misbehaving_server
from pydantic import SecretStr

from lorid.artifacts.local import LocalStore
from lorid.config import SamplingConfig
from lorid.errors import ArtifactError, BudgetSpent, EngineError, TeacherError, TeacherRefused
from lorid.method.knowledge import TEACHER_TEMPLATE
from lorid.method.problems import Problem
from lorid.sections import ApiConfig, PriceConfig
from lorid.teacher.api import ApiTeacher
from lorid.teacher.asking import Manner, ask_problem
from lorid.teacher.base import Reply, Usage
from lorid.teacher.desk import Desk, DeskPolicy, Wanted
from lorid.teacher.ledger import Ledger, Stored
from lorid.teacher.limiter import Limiter, Limits
from lorid.teacher.window import Window

KEY = "sk-of-the-tests-0123456789"
MANNER = Manner(template=TEACHER_TEMPLATE, temperature=0.2, seed=1, max_asks=3)
GOOD = {"latency": {"kind": "constant", "mean_s": 0.01}, "faults": {}, "stubborn": {},
        "max_in_flight": 0, "models": [], "requests_per_minute": 0, "api_key": KEY}  # fmt: skip
PASSING = ("408", "409", "500", "503", "500 html", "200 html", "200 error", "bad body", "cut",
           "reset", "429 without header", "slow drip")  # fmt: skip


@pytest.fixture(scope="module")
def only_server():
    with misbehaving_server(**GOOD, retry_after_s=0.05) as server:
        yield server


@pytest.fixture
def server(only_server):
    only_server.change(**GOOD)
    return only_server


def problems(num, *, start=0):
    return [
        Problem(
            problem_id=str(number),
            question=f"Question {number} of {start}: how many apples?",
            rationale="Add them.",
            answer="3",
        )
        for number in range(start, start + num)
    ]


@asynccontextmanager
async def window_to(server, folder, *, api=None, limits=None, policy=None, identity="m", key=KEY):
    config = ApiConfig(model="m", base_url=server.url, **{"timeout_s": 2, **(api or {})})
    limits = limits or Limits(max_in_flight=16)
    desk = Desk(
        ledger=Ledger.opened(LocalStore(folder), name="run"),
        limiter=Limiter(limits, clock=time.monotonic),
        policy=policy or DeskPolicy(),
    )
    teacher = ApiTeacher(config, sampling=SamplingConfig(), key=SecretStr(key))
    yield Window(
        desk=desk, teacher=teacher, worker="w", policy=desk.policy, identity={"model": identity},
        num_slots=desk.join("w").num_slots, max_tries=config.max_tries, sleep=no_sleep,
    )  # fmt: skip
    await teacher.aclose()


async def no_sleep(seconds):
    """Backoff without the wait: how long it is, the failures' own tests say."""
    await asyncio.sleep(0)


async def ask_all(window, wanted, *, manner=MANNER):
    outcomes = await asyncio.gather(
        *(ask_problem(each, respond=window.respond, manner=manner) for each in wanted),
        return_exceptions=True,
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    return [outcome for outcome in outcomes if outcome not in errors], errors


async def test_every_passing_fault_is_ridden_out_and_every_answer_is_paid_once(server, tmp_path):
    server.change(faults={fault: 0.05 for fault in PASSING})
    before = len(server.log())
    async with window_to(server, tmp_path, api={"max_tries": 30}) as window:
        outcomes, errors = await ask_all(window, problems(150))
        stats = window.desk.read_stats()
    assert errors == []
    assert [outcome.reason for outcome in outcomes] == [None] * 150
    assert stats.num_responses == 150
    assert stats.num_in_flight == 0
    good = {None, "slow drip"}
    answered = Counter(
        event["question"]
        for event in server.log(since=before)
        if event["event"] == "sent" and event["fault"] in good
    )
    assert set(answered.values()) == {1}
    assert len(answered) == 150


async def test_a_rerun_asks_nothing_and_another_teacher_asks_again(server, tmp_path):
    async with window_to(server, tmp_path) as window:
        first, _ = await ask_all(window, problems(40))
    num_asked = server.counts()["num_requests"]
    async with window_to(server, tmp_path) as window:
        again, _ = await ask_all(window, problems(40))
        assert window.desk.read_stats().num_reused == 40
    assert server.counts()["num_requests"] == num_asked
    assert again == first
    async with window_to(server, tmp_path, identity="other") as window:
        await ask_all(window, problems(40))
    assert server.counts()["num_requests"] == num_asked + 40


async def test_the_same_request_from_many_is_sent_once(server, tmp_path):
    num_asked = server.counts()["num_requests"]
    async with window_to(server, tmp_path) as window:
        outcomes, _ = await ask_all(window, problems(1, start=500) * 30)
    assert len(outcomes) == 30
    assert server.counts()["num_requests"] == num_asked + 1


@pytest.mark.parametrize("fault", ["401", "403", "404"])
async def test_what_can_never_work_stops_at_once_with_the_reason(server, tmp_path, fault):
    server.change(faults={fault: 1.0})
    num_asked = server.counts()["num_requests"]
    async with window_to(server, tmp_path) as window:
        outcomes, errors = await ask_all(window, problems(300))
        assert window.desk.read_stats().num_in_flight == 0
    assert outcomes == []
    assert {type(error) for error in errors} == {TeacherRefused}
    assert fault in str(errors[0])
    assert errors[0].exit_code == 2
    assert server.counts()["num_requests"] - num_asked <= 16


async def test_a_key_that_is_refused_stands_in_no_message(server, tmp_path):
    async with window_to(server, tmp_path, key="sk-wrong-key-987") as window:
        _, errors = await ask_all(window, problems(3))
    assert "401" in str(errors[0])
    assert "sk-wrong" not in str(errors[0])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("malformed", "not-json"),
        ("empty list", "no-rules"),
        ("refusal", "refused: by the teacher"),
        ("length", "cut-off: at the token limit"),
        ("wrong keys", "wrong-shape"),
        ("content filter", "refused: by the teacher"),
    ],
)
async def test_unusable_text_is_asked_for_again_then_set_aside(server, tmp_path, fault, reason):
    server.change(stubborn={fault: 1.0})
    num_asked = server.counts()["num_requests"]
    async with window_to(server, tmp_path) as window:
        outcomes, errors = await ask_all(window, problems(5))
    assert errors == []
    assert all(reason in outcome.reason for outcome in outcomes)
    assert server.counts()["num_requests"] - num_asked == 5 * MANNER.max_asks
    server.change(stubborn={})
    more = replace(MANNER, max_asks=2 * MANNER.max_asks)
    async with window_to(server, tmp_path) as window:
        outcomes, _ = await ask_all(window, problems(5), manner=more)
    # What was set aside is asked for once more; what it was told before is not asked again.
    assert [outcome.reason for outcome in outcomes] == [None] * 5
    assert {outcome.num_asks for outcome in outcomes} == {MANNER.max_asks + 1}
    assert server.counts()["num_requests"] - num_asked == 5 * MANNER.max_asks + 5


async def test_thoughts_and_prose_around_the_answer_are_no_fault(server, tmp_path):
    server.change(faults={"thinking": 0.4, "prose": 0.3, "fenced": 0.3})
    async with window_to(server, tmp_path) as window:
        outcomes, _ = await ask_all(window, problems(20))
    assert {(outcome.reason, outcome.num_asks) for outcome in outcomes} == {(None, 1)}


async def test_one_request_that_always_fails_is_set_aside_and_the_rest_go_on(server, tmp_path):
    server.change(stubborn={"500": 0.1})
    async with window_to(server, tmp_path, api={"max_tries": 3}) as window:
        outcomes, errors = await ask_all(window, problems(100))
    assert errors == []
    failed = [outcome for outcome in outcomes if outcome.reason is not None]
    assert 1 <= len(failed) <= 30
    assert all(
        outcome.reason.startswith("no-response: the server answered 500") for outcome in failed
    )


async def test_when_everything_fails_the_circuit_breaks_and_says_why(server, tmp_path):
    server.change(faults={"500": 1.0})
    policy = DeskPolicy(give_up_after_s=0.3)
    async with window_to(server, tmp_path, api={"max_tries": 100}, policy=policy) as window:
        outcomes, errors = await ask_all(window, problems(50))
    assert outcomes == []
    assert {type(error) for error in errors} == {TeacherError}
    assert "all failed; the newest: the server answered 500" in str(errors[0])


async def test_a_server_that_takes_less_than_allowed_is_met_by_fewer_in_flight(server, tmp_path):
    server.change(max_in_flight=6)
    limits = Limits(max_in_flight=48)
    async with window_to(server, tmp_path, limits=limits, api={"max_tries": 50}) as window:
        outcomes, errors = await ask_all(window, problems(150))
        assert window.desk.limiter.num_slots < 48
    assert errors == []
    assert all(outcome.reason is None for outcome in outcomes)


async def test_a_limit_of_the_config_is_kept_so_that_the_server_never_complains(server, tmp_path):
    server.change(requests_per_minute=6000)
    before = len(server.log())
    limits = Limits(requests_per_minute=6000, max_in_flight=64)
    async with window_to(server, tmp_path, limits=limits) as window:
        outcomes, _ = await ask_all(window, problems(200))
        assert window.desk.read_stats().num_throttled == 0
    assert len(outcomes) == 200
    times = [event["at"] for event in server.log(since=before) if event["event"] == "received"]
    assert max(times) - min(times) >= 199 / 100 - 0.2


async def test_the_cap_on_money_is_never_passed_and_a_higher_one_goes_on(server, tmp_path):
    prices = PriceConfig(input_per_million=1.0, output_per_million=10.0)
    # Some 90 tokens in and 118 out are 0.0013; the most that may come out makes it 0.0021.
    policy = DeskPolicy(prices=prices, max_cost=0.05, max_new_tokens=200)
    async with window_to(server, tmp_path, policy=policy) as window:
        outcomes, errors = await ask_all(window, problems(100))
        spent = window.desk.read_stats().spent
    assert {type(error) for error in errors} == {BudgetSpent}
    assert len(errors) + len(outcomes) == 100
    assert 0.04 < spent <= 0.05
    num_asked = server.counts()["num_requests"]
    more = replace(policy, max_cost=1.0)
    async with window_to(server, tmp_path, policy=more) as window:
        again, errors = await ask_all(window, problems(100))
    assert errors == []
    assert len(again) == 100
    assert server.counts()["num_requests"] - num_asked == 100 - len(outcomes)


async def test_a_store_that_stays_lost_stops_the_stage_instead_of_paying_on(
    server, tmp_path, monkeypatch
):
    monkeypatch.setenv("LORID_STORE_WAIT_S", "0")
    num_asked = server.counts()["num_requests"]
    async with window_to(server, tmp_path) as window:
        (tmp_path / "ledgers").write_text("a file where the folder should be")
        outcomes, errors = await ask_all(window, problems(300))
        assert window.desk.read_stats().num_in_flight == 0
    assert outcomes == []
    assert {type(error) for error in errors} == {ArtifactError}
    assert server.counts()["num_requests"] - num_asked <= 64


async def test_a_store_that_comes_back_is_waited_for_and_nothing_is_lost(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr("lorid.teacher.ledger.RETRY_S", 0.05)
    async with window_to(server, tmp_path) as window:
        (tmp_path / "ledgers").write_text("a file where the folder should be")
        asking = asyncio.ensure_future(ask_all(window, problems(40)))
        while window.desk.ledger.failing_since is None:
            await asyncio.sleep(0.01)
        assert not asking.done()
        (tmp_path / "ledgers").unlink()
        outcomes, errors = await asking
    assert errors == []
    assert len(outcomes) == 40
    assert len(Ledger.opened(LocalStore(tmp_path), name="run").lines) == 40


async def test_a_worker_that_comes_back_gets_what_it_had_out_at_once(server, tmp_path):
    async with window_to(server, tmp_path) as window:
        desk = window.desk
        wanted = [Wanted(key="a", input_tokens=1)]
        assert (await desk.acquire("w", wanted)).permitted == ["a"]
        desk.join("w")  # its process died and began again
        assert (await desk.acquire("w", wanted)).permitted == ["a"]


async def test_what_a_lost_worker_had_out_is_free_after_a_while(tmp_path):
    now = [0.0]
    desk = Desk(
        ledger=Ledger.opened(LocalStore(tmp_path), name="run"),
        limiter=Limiter(Limits(), clock=lambda: now[0]),
        policy=DeskPolicy(permit_s=100),
        clock=lambda: now[0],
    )
    wanted = [Wanted(key="a", input_tokens=1)]
    assert (await desk.acquire("lost", wanted)).permitted == ["a"]
    now[0] = 101.0
    assert (await desk.acquire("other", wanted)).permitted == ["a"]
    # The lost one was only slow: its response counts, and once.
    stored = Stored(
        key="a", ask=1, settings={}, cost=1.0,
        reply=Reply(text="x", finish_reason="stop", usage=Usage(), model="m"),
    )  # fmt: skip
    await desk.settle("lost", [stored])
    await desk.settle("other", [stored])
    assert desk.read_stats().spent == 1.0
    assert [found.key for found in (await desk.acquire("w", wanted)).stored] == ["a"]


async def test_a_teacher_that_dies_ends_the_stage_and_leaves_nothing_out(tmp_path):
    class DeadTeacher:
        """A fake: an engine that has died."""

        async def ask(self, request):
            raise EngineError("the engine has died")

        async def aclose(self):
            pass

    desk = Desk(
        ledger=Ledger.opened(LocalStore(tmp_path), name="run"),
        limiter=Limiter(Limits(), clock=time.monotonic),
        policy=DeskPolicy(),
    )
    window = Window(
        desk=desk, teacher=DeadTeacher(), worker="w", policy=desk.policy, identity={},
        num_slots=desk.join("w").num_slots,
    )  # fmt: skip
    _, errors = await ask_all(window, problems(20))
    assert {str(error) for error in errors} == {"the engine has died"}
    assert desk.read_stats().num_in_flight == 0

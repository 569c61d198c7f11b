"""Asking for one problem, judging what came, asking otherwise; and a request that is sent twice."""

import asyncio

import pytest

from lorid.config import RunConfig
from lorid.method.knowledge import TEACHER_TEMPLATE
from lorid.method.problems import Problem
from lorid.presets import demo
from lorid.teacher.asking import Manner, ask_problem, without_thoughts
from lorid.teacher.base import Reply, Usage
from lorid.teacher.failures import Failed, Failure
from lorid.teacher.hedging import hedged
from lorid.teacher.ledger import Stored

PROBLEM = Problem(problem_id="p", question="How many in all?", rationale="Add.", answer="7")
GOOD = '{"output": ["Add the parts to find a total.", "Subtract the part from its total."]}'
MANNER = Manner(template=TEACHER_TEMPLATE, temperature=0.2, seed=5, max_asks=3)


class ScriptedTeacher:
    """A fake: replies from a list, and the requests that it got."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []

    async def respond(self, request):
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        text, finish_reason = reply if isinstance(reply, tuple) else (reply, "stop")
        usage = Usage(input_tokens=10, output_tokens=7)
        made = Reply(text=text, finish_reason=finish_reason, usage=usage, model="m")
        return Stored(key="k", ask=request.ask, settings={}, reply=made)


async def test_good_text_is_asked_for_once():
    teacher = ScriptedTeacher(GOOD)
    outcome = await ask_problem(PROBLEM, respond=teacher.respond, manner=MANNER)
    assert outcome.reason is None
    assert len(outcome.rules) == 2
    assert (outcome.num_asks, outcome.num_tokens) == (1, 7)


async def test_every_new_ask_differs_and_says_what_was_wrong():
    teacher = ScriptedTeacher("no idea", (GOOD, "length"), GOOD)
    outcome = await ask_problem(PROBLEM, respond=teacher.respond, manner=MANNER)
    assert outcome.reason is None
    assert outcome.num_asks == 3
    first, second, third = teacher.requests
    assert first.prompt in second.prompt
    assert "no JSON object" in second.prompt
    assert "token limit" in third.prompt
    assert "no JSON object" not in third.prompt
    assert len({request.seed for request in teacher.requests}) == 3
    assert first.temperature < second.temperature < third.temperature
    assert len({request.key({}) for request in teacher.requests}) == 3


async def test_a_teacher_that_knows_one_prompt_is_asked_in_its_words():
    teacher = ScriptedTeacher("no idea", GOOD)
    manner = Manner(template=TEACHER_TEMPLATE, temperature=0.2, seed=5, max_asks=2, explains=False)
    await ask_problem(PROBLEM, respond=teacher.respond, manner=manner)
    assert teacher.requests[0].prompt == teacher.requests[1].prompt


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("<think>I wonder {", "empty"),
        ((GOOD, "refusal"), "refused"),
        ((GOOD, "length"), "cut-off"),
        ('{"output": []}', "no-rules"),
    ],
)
async def test_what_stays_unusable_is_set_aside_after_a_bounded_number_of_asks(reply, reason):
    teacher = ScriptedTeacher(reply, reply, reply, GOOD)
    outcome = await ask_problem(PROBLEM, respond=teacher.respond, manner=MANNER)
    assert outcome.rules == ()
    assert outcome.reason is not None
    assert outcome.reason.split(":")[0] == reason
    assert outcome.num_asks == 3


async def test_a_request_that_brings_no_response_is_not_asked_otherwise():
    failure = Failed(Failure(kind="refused", reason="the server answered 400"))
    teacher = ScriptedTeacher(failure, GOOD)
    outcome = await ask_problem(PROBLEM, respond=teacher.respond, manner=MANNER)
    assert outcome.reason == "no-response: the server answered 400"
    assert outcome.num_asks == 1


def test_thoughts_are_no_part_of_the_answer():
    assert without_thoughts("<think>{a}</think> b") == "b"
    assert without_thoughts("half a thought</think>b") == "b"
    assert without_thoughts("<think>no end {}") == ""
    assert without_thoughts(" b ") == "b"


async def test_a_slow_request_is_overtaken_by_its_second():
    cancelled = asyncio.Event()

    async def slow():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "slow"

    async def quick():
        return "quick"

    assert await hedged(slow, second=quick, after_s=0.001) == "quick"
    assert cancelled.is_set()
    assert await hedged(quick, second=slow, after_s=60) == "quick"


async def test_without_a_second_the_first_decides_and_its_error_is_told():
    gate = asyncio.Event()

    async def first():
        await gate.wait()
        raise Failed(Failure(kind="passing", reason="first"))

    async def not_allowed():
        gate.set()

    async def also_failing():
        gate.set()
        raise Failed(Failure(kind="passing", reason="second"))

    for second in (not_allowed, also_failing):
        gate.clear()
        with pytest.raises(Failed, match="first"):
            await hedged(first, second=second, after_s=0.001)


def changed(**teacher) -> RunConfig:
    api = {"model": "a", "base_url": "http://one/v1", **teacher.pop("api", {})}
    merged = demo().model_dump(mode="json")
    merged["teacher"] |= {"kind": "api", "api": api, **teacher}
    return RunConfig.model_validate(merged)


def test_another_teacher_is_another_artifact_and_another_place_is_not():
    from lorid.distributed.inputs import knowledge_inputs

    inputs = knowledge_inputs(changed())
    prices = {"input_per_million": 1, "output_per_million": 2}
    same = [
        changed(api={"base_url": "http://two/v1", "max_in_flight": 3, "requests_per_minute": 9}),
        changed(prices=prices, max_cost=3),
        changed(kind="batch"),
    ]
    other = [
        changed(api={"model": "b"}),
        changed(api={"extra": {"reasoning_effort": "low"}}),
        changed(api={"response_format": "text"}),
        changed(sampling={"temperature": 0.3, "max_new_tokens": 160}),
        changed(max_asks=4),
        changed(retry_rejects=1),
        demo(),
    ]
    assert all(knowledge_inputs(config) == inputs for config in same)
    assert all(knowledge_inputs(config) != inputs for config in other)

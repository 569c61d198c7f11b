"""The misbehaving server does what it is told, and its log says what happened."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import httpx
import openai
import pytest
from misbehaving_server import misbehaving_server
from model_answers import USABLE, rules_for

from lorid.method.knowledge import parse_knowledge, teacher_prompt
from lorid.method.problems import Problem


def problem(number: int) -> Problem:
    return Problem(
        problem_id=f"p{number}",
        question=f"Ann has {number + 10} apples and eats two of them. How many are left?",
        rationale="Subtract.",
        answer="8",
    )


def ask(client: openai.OpenAI, number: int):
    return client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": teacher_prompt(problem(number))}]
    )


@pytest.fixture(scope="module")
def server():
    with misbehaving_server() as server:
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="x", max_retries=0, timeout=5) as client:
        yield client


def behave(server, **settings):
    """Everything at its default but this, and the number of events so far."""
    plain = {"faults": {}, "stubborn": {}, "models": [], "api_key": "", "requests_per_minute": 0}
    server.change(**plain | {"latency": {"kind": "constant", "mean_s": 0}} | settings)
    return server.counts()["num_events"]


def test_a_good_answer_is_the_knowledge_of_its_own_question(server, client):
    start = behave(server)
    texts = [ask(client, number).choices[0].message.content for number in (1, 2, 1)]
    parsed = [parse_knowledge(text, problem=problem(1)) for text in texts]
    assert [list(p.rules) for p in parsed] == [
        rules_for(problem(number).question, model="m") for number in (1, 2, 1)
    ]
    events = [(entry["event"], entry["fault"]) for entry in server.log(since=start)]
    assert events == [("received", None), ("sent", None)] * 3


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", openai.AuthenticationError),
        ("403", openai.PermissionDeniedError),
        ("404", openai.NotFoundError),
        ("429", openai.RateLimitError),
        ("429 without header", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("500 html", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("reset", openai.APIConnectionError),
        ("cut", openai.APIConnectionError),
        ("bad body", json.JSONDecodeError),
    ],
)
def test_faults_of_the_connection_and_of_the_status(server, client, fault, error):
    start = behave(server, faults={fault: 1.0})
    with pytest.raises((error, openai.APIResponseValidationError, httpx.HTTPError)) as caught:
        ask(client, 3)
    if isinstance(caught.value, openai.APIStatusError):
        has_header = "retry-after" in caught.value.response.headers
        assert has_header == (fault in ("429", "503"))
    received, ended = server.log(since=start)
    assert received["fault"] == fault
    assert ended["event"] == ("lost" if fault in ("reset", "cut") else "sent")


@pytest.mark.parametrize(
    "fault", ["malformed", "empty list", "wrong keys", "not strings", "prose", "fenced",
              "thinking", "slow drip"],
)  # fmt: skip
def test_faults_of_the_text(server, client, fault):
    behave(server, faults={fault: 1.0})
    text = ask(client, 4).choices[0].message.content
    rules = rules_for(problem(4).question, model="m")
    if fault in USABLE:
        assert rules[0] in text
    else:
        assert parse_knowledge(text).rejected_because


def test_faults_of_the_finish_and_of_the_shape(server, client):
    behave(server, faults={"refusal": 1.0})
    assert ask(client, 5).choices[0].message.refusal
    behave(server, faults={"content filter": 1.0})
    assert ask(client, 5).choices[0].finish_reason == "content_filter"
    behave(server, faults={"length": 1.0})
    assert ask(client, 5).choices[0].finish_reason == "length"
    behave(server, faults={"no choices": 1.0})
    assert ask(client, 5).choices == []
    behave(server, faults={"200 error": 1.0})
    assert ask(client, 5).choices is None
    behave(server, faults={"200 html": 1.0})
    assert "Bad gateway" in str(ask(client, 5))


def test_unknown_models_and_wrong_keys_are_refused(server, client):
    behave(server, models=["other"])
    with pytest.raises(openai.NotFoundError):
        ask(client, 6)
    behave(server, api_key="secret")
    with pytest.raises(openai.AuthenticationError):
        ask(client, 6)


def test_more_than_the_limit_is_refused_with_the_time_to_wait(server, client):
    behave(server, requests_per_minute=6)
    ask(client, 1)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, 2)
    headers = caught.value.response.headers
    assert 0 < int(headers["retry-after-ms"]) <= 10_000
    assert 0 < int(headers["retry-after"]) <= 10
    assert headers["x-ratelimit-limit-requests"] == "6"


def test_the_same_seed_gives_the_same_faults_in_any_order(server):
    async def faults_of(numbers):
        client = openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0)
        start = behave(server, seed=start_seed, faults={"500": 0.3, "empty list": 0.3})
        prompts = [teacher_prompt(problem(number)) for number in numbers]
        await asyncio.gather(
            *(
                client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": prompt}]
                )
                for prompt in prompts
            ),
            return_exceptions=True,
        )
        await client.close()
        received = [e for e in server.log(since=start) if e["event"] == "received"]
        return {entry["question"]: entry["fault"] for entry in received}

    start_seed = 7
    numbers = list(range(100, 140))
    forward = asyncio.run(faults_of(numbers))
    with misbehaving_server() as server:
        assert asyncio.run(faults_of(numbers[::-1])) == forward
    assert set(forward.values()) == {None, "500", "empty list"}


def test_a_client_that_dies_leaves_its_requests_lost(server):
    start = behave(server, latency={"kind": "constant", "mean_s": 30})
    script = (
        "import sys, openai\n"
        f"client = openai.OpenAI(base_url={server.url!r}, api_key='x')\n"
        "client.chat.completions.create(model='m', messages=[{'role': 'user', 'content': 'x'}])"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while server.counts()["in_flight"] == 0:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    while server.counts()["in_flight"]:
        pass
    assert [entry["event"] for entry in server.log(since=start)] == ["received", "lost"]


def test_a_batch_is_uploaded_worked_off_and_fetched(server, client):
    start = behave(server, stubborn={"wrong keys": 0.0})
    server.change(batch_faults={"line 500": 0.2, "line missing": 0.2}, seed=3)
    lines = [
        {"custom_id": f"p{number}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "m", "messages": [
             {"role": "user", "content": teacher_prompt(problem(number))}]}}
        for number in range(30)
    ]  # fmt: skip
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", io.BytesIO(content)), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed"
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    output = read_lines(client, batch.output_file_id)
    failed = read_lines(client, batch.error_file_id)
    assert 0 < len(output) < 30
    assert 0 < len(failed) < 30
    assert len(output) + len(failed) < 30
    for line in output:
        text = line["response"]["body"]["choices"][0]["message"]["content"]
        number = int(line["custom_id"][1:])
        expected = rules_for(problem(number).question, model="m")
        assert list(parse_knowledge(text).rules) == expected
    events = Counter(entry["event"] for entry in server.log(since=start))
    assert events == {"received": 30, "sent": 30}
    server.change(batch_faults={"failed": 1.0})
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert client.batches.retrieve(batch.id).status == "failed"


def read_lines(client: openai.OpenAI, name: str):
    return [json.loads(line) for line in client.files.content(name).text.splitlines()]

"""Answers that come in pieces, by real HTTP, with the clients that people use."""

import asyncio
import json

import httpx
import openai
import pytest
from fastapi.testclient import TestClient
from scripting import TRIPLE, script, texts

from lorid.client import Client
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import EngineDied, EngineError, PromptTooLong, ServeError
from lorid.method.roles import Role

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"


def two_rounds() -> ScriptedEngine:
    return ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("8", "7"), base=["I am it"]))


def only(write) -> ScriptedEngine:
    """An engine all of whose texts are written by one function."""
    return ScriptedEngine({role: write for role in (*Role, None)})


def events_of(text: str) -> list[tuple[str, dict]]:
    events = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def test_a_stream_tells_each_attempt_each_round_and_the_answer(endpoint):
    client = endpoint(two_rounds())
    whole = client.post("/v1/solve", json={"question": QUESTION}).json()
    response = endpoint(two_rounds()).post("/v1/solve", json={"question": QUESTION, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert [name for name, _ in events].count("attempt") == 6
    assert [event["round"] for name, event in events if name == "round"] == [1, 2]
    assert events[-1][0] == "answer"
    told = [event["body"] for name, event in events if name == "round"]
    answer = events[-1][1]
    assert told == answer["rounds"] == whole["rounds"]
    same = ("answer", "outcome", "confidence", "num_rounds", "triple")
    assert [answer[key] for key in same] == [whole[key] for key in same]
    # A round is told after its three attempts.
    names = [(name, event["round"]) for name, event in events[:-1]]
    for number in (1, 2):
        before = names[: names.index(("round", number))]
        assert before.count(("attempt", number)) == 3
    deep = [e for n, e in events if n == "attempt" and e["role"] == "deep_reasoner"]
    assert [event["answer"] for event in deep] == ["8", "7"]


def test_the_attempts_come_before_the_answer_is_known(served):
    """The engine waits for what only a client that has read the first attempt can give."""
    seen = asyncio.Event()
    loops = []

    async def write(request):
        loops.append(asyncio.get_running_loop())
        if len(loops) > 1:
            await asyncio.wait_for(seen.wait(), 20)
        return "--> 7 END"

    engine = only(write)
    with Client(served(engine)) as client:
        stream = client.solve_stream(QUESTION)
        name, _ = next(stream)
        assert name == "attempt"
        loops[0].call_soon_threadsafe(seen.set)
        assert [name for name, _ in stream][-1] == "answer"


def test_what_fails_before_a_stream_begins_has_a_status(endpoint):
    def write(request):
        raise PromptTooLong("the prompt is too long")

    client = endpoint(only(write))
    response = client.post("/v1/solve", json={"question": QUESTION, "stream": True})
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "the prompt is too long"
    chat = {"model": "lorid:base", "messages": [{"role": "user", "content": QUESTION}]}
    assert client.post("/v1/chat/completions", json={**chat, "stream": True}).status_code == 422


def test_what_fails_later_is_the_last_event(served):
    def write(request):
        raise EngineError("generation failed at /secret")

    url = served(ScriptedEngine(script(intuitive=texts("7"), deep=write)))
    with Client(url) as client:
        stream = client.solve_stream(QUESTION)
        with pytest.raises(ServeError, match="generation failed; its log") as raised:
            assert [name for name, _ in stream]
    assert "secret" not in str(raised.value)


def test_a_stream_that_loses_its_engine_is_begun_anew_without_repeats(endpoint):
    failures = iter([EngineDied("gone"), None])

    def write(request):
        if (error := next(failures, None)) is not None:
            raise error
        return "--> 7 END"

    engine = ScriptedEngine(script(intuitive=texts("7"), deep=write))
    response = endpoint(engine).post("/v1/solve", json={"question": QUESTION, "stream": True})
    names = [(name, event.get("role")) for name, event in events_of(response.text)]
    assert sorted(names, key=str) == [
        ("answer", None),
        *(("attempt", role) for role in sorted(map(str, Role))),
        ("round", None),
    ]
    assert len(engine.history) == 6


def test_openai_s_client_streams_every_model(served):
    with openai.OpenAI(base_url=served(two_rounds()) + "/v1", api_key="none") as client:
        for model, expected in (
            ("lorid", "The answer is 7."),
            ("lorid:base", "I am it"),
            ("lorid:deep_reasoner", "--> 7 END"),
            ("lorid:knowledge_generator", "To find a total, add."),
        ):
            messages = [{"role": "user", "content": QUESTION}]
            whole = client.chat.completions.create(model=model, messages=messages)
            stream = client.chat.completions.create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}
            )
            *chunks, last, usage = list(stream)
            text = "".join(chunk.choices[0].delta.content for chunk in chunks)
            assert len(chunks) > 1
            if model != "lorid:deep_reasoner":
                assert text == whole.choices[0].message.content
            assert text.endswith(expected)
            assert last.choices[0].finish_reason == "stop"
            assert last.system_fingerprint == TRIPLE
            assert usage.usage.total_tokens > 0
        assert {model.id for model in client.models.list()} >= {"lorid", "lorid:base"}


def test_openai_s_client_understands_errors(served):
    url = served(ScriptedEngine({})) + "/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": QUESTION}]
        with pytest.raises(openai.NotFoundError, match="lorid:poet"):
            client.chat.completions.create(model="lorid:poet", messages=messages)


def test_max_tokens_reaches_the_engine(endpoint):
    engine = two_rounds()
    chat = {"model": "lorid:base", "messages": [{"role": "user", "content": QUESTION}]}
    client = endpoint(engine)
    client.post("/v1/chat/completions", json={**chat, "max_tokens": 9})
    client.post("/v1/chat/completions", json={**chat, "max_tokens": 9, "max_completion_tokens": 5})
    assert [request.max_tokens for request in engine.history] == [9, 5]
    response = client.post("/v1/chat/completions", json={**chat, "max_tokens": 0})
    assert response.status_code == 422


async def test_a_client_that_leaves_ends_its_work_in_the_engine(web):
    """Serve cancels the call of a client that is gone; here the test does."""
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    forever = asyncio.Event()

    async def write(request):
        loop.call_soon_threadsafe(began.set)
        await forever.wait()
        return ""

    engine = only(write)
    transport = httpx.ASGITransport(web(engine))
    item = {"id": "a", "question": QUESTION, "reference": "7"}
    messages = [{"role": "user", "content": QUESTION}]
    requests = [
        ("/v1/solve", {"question": QUESTION}, {}),
        ("/v1/solve", {"question": QUESTION, "stream": True}, {}),
        ("/v1/grade", {"items": [item] * 20}, {}),
        ("/v1/grade", {"items": [item] * 20}, {"Accept": "application/x-ndjson"}),
        ("/v1/chat/completions", {"model": "lorid:base", "messages": messages}, {}),
        ("/v1/chat/completions", {"model": "lorid:base", "messages": messages, "stream": True}, {}),
    ]  # fmt: skip
    async with httpx.AsyncClient(transport=transport, base_url="http://lorid") as client:
        for route, body, headers in requests:
            began.clear()
            asked = asyncio.create_task(client.post(route, json=body, headers=headers))
            await began.wait()
            assert engine.num_running > 0
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            async with asyncio.timeout(20):
                while engine.num_running:
                    await asyncio.sleep(0.01)


def test_a_deadline_ends_the_work_and_is_a_clean_503(web):
    async def write(request):
        await asyncio.Event().wait()

    engine = only(write)
    with TestClient(web(engine)) as client:
        messages = [{"role": "user", "content": QUESTION}]
        chat = {"model": "lorid:base", "messages": messages}
        for route, body in (
            ("/v1/solve", {"question": QUESTION}),
            ("/v1/solve", {"question": QUESTION, "stream": True}),
            ("/v1/chat/completions", chat),
            ("/v1/chat/completions", {**chat, "stream": True}),
        ):
            response = client.post(route, json={**body, "timeout_s": 0.05})
            assert response.status_code == 503
            assert response.json()["error"]["type"] == "deadline_exceeded"
            assert int(response.headers["retry-after"]) >= 1
        item = {"id": "a", "question": QUESTION, "reference": "7"}
        compared = {**item, "id": "b", "submission": "7"}
        body = {"items": [item, compared], "timeout_s": 0.5}
        late, done = client.post("/v1/grade", json=body).json()["results"]
        assert (late["error_type"], done["verdict"]) == ("deadline_exceeded", "correct")
    assert engine.num_running == 0


def test_the_endpoint_s_own_bound_holds_for_who_asks_for_more(endpoint):
    async def write(request):
        await asyncio.Event().wait()

    engine = only(write)
    client = endpoint(engine, serving={"request_timeout_s": 0.05})
    response = client.post("/v1/solve", json={"question": QUESTION, "timeout_s": 1000})
    assert response.status_code == 503


def test_a_stream_that_meets_its_deadline_says_so(endpoint):
    async def write(request):
        await asyncio.Event().wait()

    engine = ScriptedEngine(script(intuitive=texts("7"), deep=write))
    body = {"question": QUESTION, "stream": True, "timeout_s": 0.3}
    response = endpoint(engine).post("/v1/solve", json=body)
    name, event = events_of(response.text)[-1]
    assert (name, event["error"]["type"]) == ("error", "deadline_exceeded")
    assert event["error"]["request_id"] == response.headers["x-request-id"]

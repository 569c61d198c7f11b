"""Clients that go away, by real HTTP: their work ends, and the audit log says that they left."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
from scripting import script, texts

from lorid.distributed.streaming import NDJSON
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
MESSAGES = [{"role": "user", "content": QUESTION}]
COMPARED = {"id": "a", "question": QUESTION, "reference": "7", "submission": "7"}
SOLVED = {"id": "b", "question": QUESTION, "reference": "7"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is asked, and what the client reads before it leaves; None: it leaves before that."""

    route: str
    body: dict
    accept: str = "*/*"
    reads: bytes | None = None


SOLVE = {"question": QUESTION}
GRADE = {"items": [COMPARED, SOLVED, SOLVED]}
BASE = {"model": "lorid:base", "messages": MESSAGES}
FEEDBACK = {"model": "lorid", "messages": MESSAGES}
STREAM = {"stream": True}
CASES = {
    "solve": Case(route="/v1/solve", body=SOLVE),
    "solve stream": Case(route="/v1/solve", body=SOLVE | STREAM, reads=b"event: attempt"),
    "grade": Case(route="/v1/grade", body=GRADE),
    "grade lines": Case(route="/v1/grade", body=GRADE, accept=NDJSON, reads=b'"correct"'),
    "grade lines, none read": Case(
        route="/v1/grade", body={"items": [SOLVED]}, accept=NDJSON, reads=b"200 OK"
    ),
    "chat": Case(route="/v1/chat/completions", body=BASE),
    "chat stream": Case(route="/v1/chat/completions", body=BASE | STREAM, reads=b"First"),
    "chat by feedback": Case(route="/v1/chat/completions", body=FEEDBACK),
    "chat by feedback, stream": Case(route="/v1/chat/completions", body=FEEDBACK | STREAM),
}


class Slow(ScriptedEngine):
    """Says a first word, and then what its writer does."""

    async def generate(self, request, *, on_text=None):
        if on_text is not None:
            on_text("First ")
        return await super().generate(request, on_text=on_text)


def endless() -> Slow:
    """An engine whose intuitive attempts end, and nothing else."""

    async def write(_):
        await asyncio.Event().wait()

    return Slow(
        script(intuitive=texts("7"), deep=write, base=write) | {Role.KNOWLEDGE_GENERATOR: write}
    )


def wait_until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.005)


def sent(url: str, case: Case, *, num_missing: int = 0) -> socket.socket:
    """A connection on which that was asked, but for the last bytes."""
    body = json.dumps(case.body).encode()
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=20)
    head = (
        f"POST {case.route} HTTP/1.1\r\nHost: lorid\r\nContent-Type: application/json\r\n"
        f"Accept: {case.accept}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body[: len(body) - num_missing])
    return connection


def read_until(connection: socket.socket, what: bytes) -> None:
    seen = b""
    while what not in seen:
        piece = connection.recv(65536)
        assert piece, seen
        seen += piece


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_who_leaves_is_noted_and_ends_the_work(served, audited, logged, case):
    engine = endless()
    with sent(served(engine), case) as connection:
        if case.reads is not None:
            read_until(connection, case.reads)
        wait_until(lambda: engine.num_running)
        assert not audited()
    wait_until(audited)
    (line,) = audited()
    assert line["left"] is True
    assert line["status"] == (499 if case.reads is None else 200)
    assert "error" not in line
    wait_until(lambda: not engine.num_running)
    assert not [one for one in logged if one.levelno >= logging.WARNING]


def test_who_leaves_within_the_body_is_noted(served, audited):
    with sent(served(endless()), CASES["solve"], num_missing=5) as connection:
        connection.shutdown(socket.SHUT_WR)
        wait_until(audited)
    (line,) = audited()
    assert (line["status"], line["left"]) == (499, True)
    assert "error" not in line


def test_who_stays_did_not_leave(served, audited):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7"), base=["It is 7"]))
    with httpx.Client(base_url=served(engine)) as client:
        for case in CASES.values():
            response = client.post(case.route, json=case.body, headers={"Accept": case.accept})
            assert response.status_code == 200
    wait_until(lambda: len(audited()) == len(CASES))
    assert [line["status"] for line in audited()] == [200] * len(CASES)
    assert not any("left" in line for line in audited())

"""A local OpenAI-compatible server, in a process of its own, that misbehaves on request.

    with misbehaving_server(latency={"kind": "lognormal", "median_s": 0.05, "sigma": 0.5},
                            faults={"500": 0.05, "reset": 0.02}, seed=1) as server:
        OpenAI(base_url=server.url, api_key="any")
        server.change(faults={})
        server.log()       # every request received, every answer that was wholly sent or lost

Answers come from the request (model_answers.py). Whether a request meets a fault follows from seed,
question and how often that question was asked, so a run can be repeated whatever the order is. The
first `max_faults_per_question` requests of a question may fail; questions that `stubborn` picks
fail always. One thread on uvloop: some thousands of requests a second.
"""

import argparse
import asyncio
import hashlib
import json
import math
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop
from batch_jobs import BatchJobs
from model_answers import completion, question_id, question_in
from server_state import Settings, State, Ticket

REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
           429: "Too Many Requests", 500: "Internal Server Error"}  # fmt: skip
STATUS_FAULTS = {"401": 401, "403": 403, "404": 404, "408": 408, "409": 409, "500": 500,
                 "503": 503, "429": 429, "429 without header": 429}  # fmt: skip
CODES = {401: "invalid_api_key", 403: "forbidden", 404: "model_not_found", 429: "rate_limit"}
HTML = b"<html><body><h1>Bad gateway</h1></body></html>"


class Connection(asyncio.Protocol):
    """One client's connection: parses requests, and answers one after the other."""

    transport: asyncio.Transport

    def __init__(self, state: State, batches: BatchJobs) -> None:
        self.state, self.batches = state, batches
        self.parser = httptools.HttpRequestParser(self)
        self.body, self.url, self.authorization = b"", b"", ""
        self.unsent: Ticket | None = None
        self.waiting: Ticket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self.url, self.body, self.authorization = url, b"", ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self.authorization = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        path = self.url.decode().partition("?")[0].removeprefix("/v1")
        key = self.state.settings.api_key
        if path == "/chat/completions":
            self.chat()
        elif path.startswith("/control/"):
            self.control(path.removeprefix("/control/"))
        elif key and self.authorization != f"Bearer {key}":
            self.send(*_error(401))
        elif path == "/models":
            names = self.state.settings.models or ("any",)
            data = [{"id": name, "object": "model", "owned_by": "tests"} for name in names]
            self.send(200, _json({"object": "list", "data": data}))
        else:
            method = self.parser.get_method().decode()
            self.send(*self.batches.answer(method, path, self.body))

    def control(self, name: str) -> None:
        state = self.state
        if name == "settings":
            state.settings = replace(state.settings, **json.loads(self.body))
        start = int(self.url.decode().partition("since=")[2] or 0)
        answers: dict[str, Callable[[], object]] = {
            "settings": lambda: asdict(state.settings),
            "log": lambda: state.log[start:],
            "counts": lambda: {"in_flight": state.in_flight, "most_in_flight": state.max_seen,
                               "num_requests": state.num_requests, "num_events": len(state.log)},
        }  # fmt: skip
        self.send(200, _json(answers[name]()))

    def chat(self) -> None:
        state, settings = self.state, self.state.settings
        request = json.loads(self.body)
        model = str(request.get("model", ""))
        question = question_id(question_in(request["messages"]))
        state.num_requests += 1
        body = hashlib.sha256(self.body).hexdigest()[:16]
        ticket = Ticket(number=state.num_requests, question=question, body=body, model=model)
        num_tokens = len(self.body) // 4 + int(request.get("max_tokens") or 0)
        if settings.api_key and self.authorization != f"Bearer {settings.api_key}":
            return self.refuse(replace(ticket, fault="401"), 401)
        if settings.models and model not in settings.models:
            return self.refuse(replace(ticket, fault="404"), 404)
        if settings.max_in_flight and state.in_flight >= settings.max_in_flight:
            return self.refuse(replace(ticket, fault="limit"), 429)
        wait_s = state.requests.take(1, per_minute=settings.requests_per_minute)
        wait_s = wait_s or state.tokens.take(num_tokens, per_minute=settings.tokens_per_minute)
        if wait_s:
            return self.refuse(replace(ticket, fault="limit"), 429, wait_s=wait_s)
        state.asked[question] += 1
        ticket = replace(ticket, fault=state.fault_of(question))
        state.note("received", ticket)
        self.waiting = ticket
        delay_s = state.latency_s()
        loop = asyncio.get_running_loop()
        loop.call_later(delay_s, self.finish, ticket, request)
        return None

    def refuse(self, ticket: Ticket, status: int, *, wait_s: float | None = None) -> None:
        """Answer at once with an error."""
        self.state.note("received", ticket)
        self.waiting = ticket
        self.send(*_error(status), headers=self.rate_headers(wait_s), ticket=ticket)

    def rate_headers(self, wait_s: float | None) -> str:
        settings, text = self.state.settings, ""
        if wait_s is not None and settings.retry_after_s > 0:
            text += f"Retry-After: {max(1, math.ceil(wait_s))}\r\n"
            text += f"Retry-After-Ms: {math.ceil(wait_s * 1000)}\r\n"
        if settings.rate_headers and settings.requests_per_minute:
            text += f"X-RateLimit-Limit-Requests: {settings.requests_per_minute:.0f}\r\n"
            text += f"X-RateLimit-Remaining-Requests: {int(self.state.requests.level)}\r\n"
            text += f"X-RateLimit-Reset-Requests: {wait_s or 0:.3f}s\r\n"
        return text

    def finish(self, ticket: Ticket, request: dict[str, Any]) -> None:
        """Answer after the latency, in the way that the fault says."""
        fault = ticket.fault
        if self.transport.is_closing():
            return None
        if fault == "reset":
            return self.reset()
        if fault in STATUS_FAULTS:
            status = STATUS_FAULTS[fault]
            header = f"Retry-After: {self.state.settings.retry_after_s:g}\r\n"
            headers = header if fault in ("429", "503") else ""
            return self.send(*_error(status), headers=headers, ticket=ticket)
        if fault in ("500 html", "200 html"):
            return self.send(int(fault[:3]), HTML, kind="text/html", ticket=ticket)
        if fault == "200 error":
            return self.send(200, _error(500)[1], ticket=ticket)
        content = completion(request, fault=fault, number=ticket.number)
        if self.state.settings.numbered_models:
            content["model"] += f"-{ticket.number}"
        body = _json(content)
        if fault == "bad body":
            body = body[: len(body) // 2]
        if fault == "hang":
            return None
        if fault == "cut":
            self.transport.write(_head(200, len(body)) + body[: len(body) // 2])
            return self.reset()
        if fault == "slow drip":
            return self.drip(_head(200, len(body)) + body, ticket)
        return self.send(200, body, headers=self.rate_headers(None), ticket=ticket)

    def send(
        self, status: int, body: bytes, *, kind: str = "application/json", headers: str = "",
        ticket: Ticket | None = None,
    ) -> None:  # fmt: skip
        if not self.transport.is_closing():
            self.transport.write(_head(status, len(body), kind=kind, headers=headers) + body)
            self.wrote(ticket)

    def wrote(self, ticket: Ticket | None) -> None:
        """The last byte was given to the transport; the log waits until the kernel has it."""
        if ticket is None:
            return
        if self.transport.get_write_buffer_size():
            self.unsent = ticket
        else:
            self.waiting = None
            self.state.note("sent", ticket)

    def resume_writing(self) -> None:
        if self.unsent is not None:
            self.state.note("sent", self.unsent)
            self.unsent = self.waiting = None

    def drip(self, content: bytes, ticket: Ticket, *, step: int = 0) -> None:
        """Ten pieces within half a second."""
        if self.transport.is_closing():
            return
        step = step or max(1, len(content) // 10)
        self.transport.write(content[:step])
        if rest := content[step:]:
            again = partial(self.drip, rest, ticket, step=step)
            asyncio.get_running_loop().call_later(0.05, again)
        else:
            self.wrote(ticket)

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting is not None:
            self.state.note("lost", self.waiting)
            self.waiting = self.unsent = None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _error(status: int) -> tuple[int, bytes]:
    code = CODES.get(status, "server_error")
    return status, _json({"error": {"message": "injected", "type": code, "code": code}})


def _head(status: int, length: int, *, kind: str = "application/json", headers: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Injected')}\r\nContent-Type: {kind}\r\n"
        f"{headers}Content-Length: {length}\r\n\r\n"
    ).encode()


async def _serve(settings: Settings, port: int) -> None:
    state = State(settings)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        partial(Connection, state, BatchJobs(state)), "127.0.0.1", port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Server:
    """The process as tests see it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"

    def _control(self, name: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/control/{name}", data, timeout=60) as answer:
            return json.load(answer)

    def change(self, **settings: Any) -> None:
        """Behave otherwise from now on."""
        self._control("settings", settings)

    def log(self, *, since: int = 0) -> list[dict[str, Any]]:
        """Events from the numbered one on, oldest first."""
        return self._control(f"log?since={since}")

    def counts(self) -> dict[str, int]:
        """Requests in flight now and at most, of all time, and the number of events."""
        return self._control("counts")


@contextmanager
def misbehaving_server(**settings: Any) -> Iterator[Server]:
    """The server for the duration of the block."""
    Settings(**settings)
    command = [sys.executable, str(Path(__file__)), "--settings", json.dumps(settings)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Server(int(process.stdout.readline()))
        finally:
            process.kill()


def main() -> None:
    """Serve until killed; the first line printed is the port."""
    parser = argparse.ArgumentParser(description="A local OpenAI-compatible server for tests.")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    uvloop.run(_serve(Settings(**args.settings), args.port))


if __name__ == "__main__":
    main()

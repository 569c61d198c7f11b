"""What every request passes before a route sees it, and every answer on its way out.

    X-Request-Id -> token -> room (admission) -> body counted while it is read -> route
    answer: X-Request-Id, security headers, one line in the audit log, counted in /metrics

Plain ASGI, so that a stream stays a stream, and a request that is cancelled is cancelled in the
route too. Nothing of a body is read before there is room. A client that goes away ends its request:
Serve's proxy cancels it, other servers only tell who listens, as is done here.
"""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import SpanKind, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lorid.api import ErrorBody, ErrorDetail
from lorid.distributed.access import Tokens
from lorid.distributed.admission import Admission, Kind, Refused
from lorid.distributed.bodies import sendable
from lorid.distributed.metrics import Metrics
from lorid.distributed.page import FOLDER
from lorid.distributed.tracing import Tracing
from lorid.serving import ServingConfig

# Anybody may see these: they say nothing about questions, answers or users.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
# The page's own files, the same for everybody.
OPEN_FOLDER = f"{FOLDER}/"
KINDS: Mapping[str, Kind] = {
    "/v1/solve": "question",
    "/v1/chat/completions": "question",
    "/v1/grade": "batch",
}
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
# A route ends by its own deadline; what is still there so long after it is cut off.
GRACE_S = 5.0
CLIENT_LEFT = 499
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
audit = logging.getLogger("ray.serve.lorid.audit")


@dataclass(kw_only=True)
class Facts:
    """What is known of a request; routes add `notes` for the audit log."""

    request_id: str
    route: str
    method: str
    token: str | None
    is_known: bool
    began: float
    deadline: float
    status: int = 0
    num_bytes: int = 0
    notes: dict[str, object] = field(default_factory=dict[str, object])

    def deadline_within(self, timeout_s: float | None) -> float:
        """On the loop's clock: when to give up, if the request asks for so many seconds."""
        if timeout_s is None:
            return self.deadline
        return min(self.deadline, self.began + timeout_s)


def facts_of(scope: Mapping[str, Any]) -> Facts:
    """The facts of the request that a scope belongs to."""
    return scope["lorid"]


def error_response(
    status: int, message: str, *, kind: str, request_id: str, retry_after_s: int | None = None
) -> JSONResponse:
    """An error in the one shape that all errors have."""
    detail = ErrorDetail(type=kind, message=sendable(message), request_id=request_id)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return JSONResponse(
        ErrorBody(error=detail).model_dump(), status_code=status, headers=headers or None
    )


class Edge:
    """The outermost part of the endpoint."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        serving: ServingConfig,
        tokens: Tokens | None,
        admission: Admission,
        metrics: Metrics,
    ) -> None:
        self.app, self.serving, self.tokens = app, serving, tokens
        self.admission, self.metrics = admission, metrics
        self.tracing = Tracing(serving.otlp_endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts = self._facts(scope)
        scope["lorid"] = facts
        sending = _Sending(send, facts)
        with self._span(scope, facts):
            try:
                await self._answer(scope, receive, sending, facts)
            except asyncio.CancelledError:
                _note_left(facts)
                raise
            finally:
                self._note(facts)

    @contextmanager
    def _span(self, scope: Scope, facts: Facts) -> Iterator[None]:
        """The request in a trace, the client's own where it sends one; probes are in none."""
        if facts.route not in KINDS or facts.method != "POST":
            yield
            return
        about = {
            "http.request.method": facts.method,
            "http.route": facts.route,
            "lorid.request_id": facts.request_id,
        }
        name, parent = f"{facts.method} {facts.route}", Headers(scope=scope)
        with self.tracing.span(name, parent=parent, kind=SpanKind.SERVER, attributes=about) as span:
            try:
                yield
            finally:
                span.set_attribute("http.response.status_code", facts.status)
                if facts.status >= 500 or "error" in facts.notes:
                    span.set_status(StatusCode.ERROR)
                    span.set_attribute("error.type", str(facts.notes.get("error", facts.status)))

    def _facts(self, scope: Scope) -> Facts:
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        is_fit = _REQUEST_ID.fullmatch(given) is not None
        name = self.tokens.name_of(headers.get("authorization")) if self.tokens else None
        route = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        is_batch = KINDS.get(route) == "batch"
        limit_s = self.serving.batch_timeout_s if is_batch else self.serving.request_timeout_s
        began = asyncio.get_running_loop().time()
        return Facts(
            request_id=given if is_fit else uuid.uuid4().hex,
            route=route,
            method=scope["method"],
            token=name,
            is_known=self.tokens is None or name is not None,
            began=began,
            deadline=began + limit_s,
        )

    async def _answer(self, scope: Scope, receive: Receive, send: "_Sending", facts: Facts) -> None:
        async def refuse(status: int, kind: str, message: str, wait_s: int | None = None) -> None:
            facts.notes["error"] = kind
            response = error_response(
                status, message, kind=kind, request_id=facts.request_id, retry_after_s=wait_s
            )
            await response(scope, receive, send)

        is_open = facts.route in OPEN_PATHS or facts.route.startswith(OPEN_FOLDER)
        if not facts.is_known and not is_open:
            message = "send `Authorization: Bearer TOKEN` with a token of this endpoint"
            await refuse(401, "unauthorized", message)
            return
        kind = KINDS.get(facts.route) if facts.method == "POST" else None
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self.serving.max_body_bytes:
            await refuse(413, "too_large", self._too_large())
            return
        timeout = asyncio.timeout_at(facts.deadline + GRACE_S)
        receiving = _Receiving(self._counted(receive, facts), send, work=timeout)
        try:
            with self.admission.admit(kind) if kind else nullcontext(), receiving:
                async with timeout:
                    await self.app(scope, receiving, send)
        except Refused as refusal:
            await refuse(refusal.status, refusal.kind, str(refusal), wait_s=refusal.retry_after_s)
        except TimeoutError:
            if receiving.has_left:
                return
            if not timeout.expired() or send.has_begun:
                raise
            await refuse(503, "deadline_exceeded", "the request did not arrive in time", 1)
        except Exception:
            # Starlette raises again what a handler has answered (and logged) already.
            if not send.has_begun:
                raise
        finally:
            if receiving.has_left:
                _note_left(facts)

    def _counted(self, receive: Receive, facts: Facts) -> Receive:
        async def counted() -> Message:
            message = await receive()
            facts.num_bytes += len(message.get("body", b""))
            if facts.num_bytes > self.serving.max_body_bytes:
                # FastAPI lets this one exception through while it reads a body.
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"a body may have {self.serving.max_body_bytes} bytes; send fewer items at a time"

    def _note(self, facts: Facts) -> None:
        took = asyncio.get_running_loop().time() - facts.began
        self.metrics.answered(
            route=facts.route,
            status=facts.status,
            seconds=took,
            error=str(facts.notes["error"]) if "error" in facts.notes else None,
        )
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": facts.request_id,
            "token": facts.token,
            "method": facts.method,
            "route": facts.route[:200],
            "status": facts.status,
            "duration_ms": round(1000 * took, 1),
            "bytes": facts.num_bytes,
            **facts.notes,
        }
        audit.info(json.dumps(line))


def _note_left(facts: Facts) -> None:
    facts.status = facts.status or CLIENT_LEFT
    facts.notes["left"] = True


class _Receiving:
    """`receive`, until the client goes away: that ends `work`, and the route never hears of it.

    After the body there is nothing more to come but that, so from then on it is waited for.
    """

    def __init__(self, receive: Receive, send: "_Sending", *, work: asyncio.Timeout) -> None:
        self.receive, self.send, self.work = receive, send, work
        self.has_left = False
        self.watch: asyncio.Task[None] | None = None

    async def __call__(self) -> Message:
        if self.watch is None:
            message = await self.receive()
            if message["type"] != "http.disconnect":
                if not message.get("more_body", False):
                    self.watch = asyncio.create_task(self._wait())
                return message
            self._leave()
        return await asyncio.get_running_loop().create_future()

    def __enter__(self) -> "_Receiving":
        return self

    def __exit__(self, *_: object) -> None:
        if self.watch is not None:
            self.watch.cancel()

    async def _wait(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        # A server says it too of a client that has its whole answer.
        if not self.send.has_ended and not self.work.expired():
            self.has_left = True
            self.work.reschedule(asyncio.get_running_loop().time())


class _Sending:
    """`send`, with the headers that every answer has."""

    def __init__(self, send: Send, facts: Facts) -> None:
        self.send, self.facts = send, facts
        self.has_begun = self.has_ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.facts.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.facts.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self.send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.has_ended = True

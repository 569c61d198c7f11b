"""Answers that come in pieces: server-sent events, NDJSON, and OpenAI's chunks.

    return StreamingResponse(lines(...), media_type=NDJSON)

A stream that has begun cannot change its status any more: what goes wrong then is its last event.
So the first piece is waited for before the answer begins (`begun`), and what goes wrong until then
has a status.
"""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from pydantic import BaseModel

from lorid.api import ErrorBody, ErrorDetail
from lorid.distributed.bodies import Answered, Failure, failure_of
from lorid.method.feedback import Sampled

SSE, NDJSON = "text/event-stream", "application/x-ndjson"
DEADLINE = Failure(
    status=503, kind="deadline_exceeded", message="not done by the request's deadline"
)
Piece = TypeVar("Piece")


class DeadlineExceeded(Exception):
    """The request's time is over."""


async def until(deadline: float, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """The pieces that come before the deadline.

    Raises:
        DeadlineExceeded: the deadline came first.
    """
    try:
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise DeadlineExceeded from error
            yield piece
    finally:
        await closed(pieces)


async def closed(pieces: AsyncIterator[Any]) -> None:
    """End a generator now, and what it has under way."""
    aclose = getattr(pieces, "aclose", None)
    if aclose is not None:
        await aclose()


async def begun(pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """The same pieces, of which the first is there; raises what it raises."""
    first = await anext(pieces)

    async def again() -> AsyncIterator[Piece]:
        try:
            yield first
            async for piece in pieces:
                yield piece
        finally:
            await closed(pieces)

    return again()


def line(body: BaseModel) -> str:
    """A line of NDJSON."""
    return body.model_dump_json() + "\n"


def event(name: str, body: BaseModel) -> str:
    """A server-sent event; JSON has no line breaks, so one data line is enough."""
    return f"event: {name}\ndata: {body.model_dump_json()}\n\n"


def error_body(error: Exception, *, request_id: str) -> ErrorBody:
    """What a stream ends with when it fails."""
    failure = DEADLINE if isinstance(error, DeadlineExceeded) else failure_of(error)
    detail = ErrorDetail(type=failure.kind, message=failure.message, request_id=request_id)
    return ErrorBody(error=detail)


class Chat:
    """The OpenAI-compatible bodies of one completion; the fingerprint names the triple."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.name, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self, written: Answered[Sampled]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": written.answer.text}
        choice = {"index": 0, "message": message, "finish_reason": _finish_reason(written.answer)}
        return {
            **self._head("chat.completion", written.triple),
            "choices": [choice],
            "usage": _usage(written.answer),
        }

    def piece(self, text: str) -> dict[str, Any]:
        """One chunk of text."""
        delta = {"role": "assistant", "content": text}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        return {**self._head("chat.completion.chunk", None), "choices": [choice]}

    def end(self, written: Answered[Sampled], *, with_usage: bool) -> list[dict[str, Any]]:
        """The last chunks: why it ended, and the usage."""
        head = self._head("chat.completion.chunk", written.triple)
        choice = {"index": 0, "delta": {}, "finish_reason": _finish_reason(written.answer)}
        usage = [{**head, "choices": [], "usage": _usage(written.answer)}] if with_usage else []
        return [{**head, "choices": [choice]}, *usage]

    def _head(self, kind: str, triple: str | None) -> dict[str, Any]:
        return {
            "id": self.name,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": triple,
        }


def words_of(text: str) -> list[str]:
    """A text in pieces of a word, white space included."""
    return re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", text)


def _finish_reason(sampled: Sampled) -> str:
    return "length" if sampled.truncated else "stop"


def _usage(sampled: Sampled) -> dict[str, int]:
    return {
        "prompt_tokens": sampled.num_prompt_tokens,
        "completion_tokens": sampled.num_tokens,
        "total_tokens": sampled.num_prompt_tokens + sampled.num_tokens,
    }

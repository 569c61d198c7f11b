"""Transcripts and errors as HTTP bodies.

A file of its own: Serve copies the ingress class as its decorator finds it, so what the routes call
must be imported above the class.
"""

import time
import uuid
from typing import Any

from lorid.api import AttemptBody, RoundBody
from lorid.errors import LoridError
from lorid.method.feedback import Attempt, Sampled, Transcript


def rounds_body(transcript: Transcript) -> list[RoundBody]:
    """The rounds of a transcript."""

    def body(attempt: Attempt | None) -> AttemptBody | None:
        if attempt is None:
            return None
        return AttemptBody(rationale=attempt.rationale, answer=attempt.answer)

    return [
        RoundBody(
            intuitive=body(one.intuitive),
            knowledge=one.knowledge,
            deep=body(one.deep),
            agreed=one.agreed,
        )
        for one in transcript.rounds
    ]


def explained(transcript: Transcript) -> str:
    """The newest rationale that gave the final answer, with that answer."""
    if transcript.answer is None:
        return "No answer."
    for one in reversed(transcript.rounds):
        for attempt in (one.deep, one.intuitive):
            if attempt is not None and attempt.answer == transcript.answer:
                return f"{attempt.rationale}\n\nThe answer is {transcript.answer}."
    return f"The answer is {transcript.answer}."


def completion_body(model: str, sampled: Sampled) -> dict[str, Any]:
    """The OpenAI-compatible body of one text."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": sampled.text},
        "finish_reason": "length" if sampled.truncated else "stop",
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": sampled.num_prompt_tokens,
            "completion_tokens": sampled.num_tokens,
            "total_tokens": sampled.num_prompt_tokens + sampled.num_tokens,
        },
    }


def readable(error: Exception) -> str:
    """An error for a stranger: lorid's own text, or only what kind it was."""
    cause = cause_of(error)
    if isinstance(cause, LoridError):
        return str(cause)
    return f"the endpoint failed ({type(cause).__name__}); see its log"


def cause_of(error: Exception) -> Exception:
    """What went wrong in the engine's replica, without what Ray wraps around it."""
    return getattr(error, "cause", None) or error


def sendable(text: str) -> str:
    """Text that UTF-8 can carry: JSON may bring half of a surrogate pair, which no answer can."""
    return text.encode("utf-8", "replace").decode()

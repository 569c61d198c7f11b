"""Transcripts and errors as HTTP bodies: what the method says, in the words of `lorid.api`."""

import logging
import uuid
from dataclasses import dataclass
from typing import Generic, TypeVar

from lorid.api import AttemptBody, AttemptEvent, RoundBody, SolveResponse, Usage
from lorid.errors import EngineDied, EngineError, PromptTooLong, one_line
from lorid.method.feedback import (
    Ask,
    Attempt,
    Round,
    Sampled,
    Transcript,
    attempt_from,
)
from lorid.method.roles import Role

Content = TypeVar("Content")
logger = logging.getLogger("ray.serve.lorid")


@dataclass(frozen=True, kw_only=True)
class Answered(Generic[Content]):
    """What a replica answers, the address of the triple that wrote it, and how long it took."""

    triple: str
    answer: Content
    waited_s: float = 0.0
    worked_s: float = 0.0


def round_body(one: Round) -> RoundBody:
    """One round."""

    def body(attempt: Attempt | None) -> AttemptBody | None:
        if attempt is None:
            return None
        return AttemptBody(rationale=attempt.rationale, answer=attempt.answer)

    return RoundBody(
        intuitive=body(one.intuitive),
        knowledge=one.knowledge,
        deep=body(one.deep),
        agreed=one.agreed,
    )


def rounds_body(transcript: Transcript) -> list[RoundBody]:
    """The rounds of a transcript."""
    return [round_body(one) for one in transcript.rounds]


def attempt_event(ask: Ask, sampled: Sampled) -> AttemptEvent:
    """A text that has ended, before its round is judged."""
    is_knowledge = ask.role is Role.KNOWLEDGE_GENERATOR
    return AttemptEvent(
        round=ask.round_index + 1,
        role=ask.role.value,
        text=sampled.text,
        answer=None if is_knowledge else attempt_from(sampled).answer,
    )


def solve_body(solved: Answered[Transcript]) -> SolveResponse:
    """The answer of `/v1/solve`."""
    transcript = solved.answer
    return SolveResponse(
        id=uuid.uuid4().hex,
        triple=solved.triple,
        answer=transcript.answer,
        outcome=transcript.outcome.value,
        confidence=transcript.confidence,
        num_rounds=len(transcript.rounds),
        rounds=rounds_body(transcript),
        usage=Usage(
            num_generations=transcript.num_generations,
            num_wasted=transcript.num_wasted,
            prompt_tokens=transcript.num_prompt_tokens,
            completion_tokens=transcript.num_tokens,
        ),
    )


def explained(transcript: Transcript) -> str:
    """The newest rationale that gave the final answer, with that answer."""
    if transcript.answer is None:
        return "No answer."
    for one in reversed(transcript.rounds):
        for attempt in (one.deep, one.intuitive):
            if attempt is not None and attempt.answer == transcript.answer:
                return f"{attempt.rationale}\n\nThe answer is {transcript.answer}."
    return f"The answer is {transcript.answer}."


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An error as a stranger may see it: nothing of the inside but lorid's own words."""

    status: int
    kind: str
    message: str


def failure_of(error: Exception) -> Failure:
    """What an answer says about an error; the log gets the rest."""
    cause = cause_of(error)
    if isinstance(cause, PromptTooLong):
        return Failure(status=422, kind="invalid_request", message=str(cause))
    if isinstance(cause, EngineDied | Unavailable):
        message = "the engine is not there; it is being started again"
        return Failure(status=503, kind="unavailable", message=message)
    logger.error("a request failed: %s", one_line(cause), exc_info=error)
    what = "generation failed" if isinstance(cause, EngineError) else "the endpoint failed"
    return Failure(status=500, kind="internal_error", message=f"{what}; its log says why")


class Unavailable(Exception):
    """No replica answers now; it may help to ask again."""


def cause_of(error: Exception) -> Exception:
    """What went wrong in the engine's replica, without what Ray wraps around it."""
    return getattr(error, "cause", None) or error


def sendable(text: str) -> str:
    """Text that UTF-8 can carry: JSON may bring half of a surrogate pair, which no answer can."""
    return text.encode("utf-8", "replace").decode()

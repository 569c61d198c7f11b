"""What the published schema says of each route: bodies, answers, errors, all with examples.

`python -m lorid.distributed.http_docs` writes docs/http-api.md from it; a test compares the two,
and checks the examples against the bodies.
"""

from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse

from lorid.api import (
    AttemptBody,
    AttemptEvent,
    ChatRequest,
    DepartureBody,
    ErrorBody,
    ErrorDetail,
    Fact,
    Feedback,
    GradeCounts,
    GradeRequest,
    GradeResponse,
    GradeResult,
    GradeSummaryLine,
    RoundBody,
    RoundEvent,
    SolveRequest,
    SolveResponse,
    TripleCard,
    Usage,
)
from lorid.distributed.bodies import Answered
from lorid.distributed.streaming import NDJSON, SSE, Chat, event, line
from lorid.method.feedback import Sampled

REQUEST_ID = "2f1c7d8e9a0b4c5d8e7f6a5b4c3d2e1f"
TRIPLE = "triple/demo/0123456789ab"
RETRY_AFTER = {
    "Retry-After": {
        "description": "seconds to wait before the next try",
        "schema": {"type": "integer"},
    }
}
ABOUT: dict[str, Any] = {
    "title": "lorid",
    "version": "1",
    "summary": "Solves and grades mathematics by mutual feedback.",
    # These pages load scripts from other hosts.
    "docs_url": None,
    "redoc_url": None,
}
_ERRORS = {
    400: ("the body cannot be read", "invalid_request", "There was an error parsing the body"),
    401: (
        "no token, or one that the endpoint does not know",
        "unauthorized",
        "send `Authorization: Bearer TOKEN` with a token of this endpoint",
    ),
    404: (
        "no such model",
        "not_found",
        "unknown model 'gpt'; GET /v1/models lists them",
    ),
    413: (
        "the body is too large",
        "too_large",
        "a body may have 33554432 bytes; send fewer items at a time",
    ),
    422: ("the body does not fit", "invalid_request", "body.question: Field required"),
    429: (
        "as many requests as may be are at work or waiting",
        "too_many_requests",
        "320 question requests are at work or waiting; try again later",
    ),
    500: ("the endpoint failed", "internal_error", "generation failed; its log says why"),
    503: (
        "not done by the deadline (`deadline_exceeded`), going away (`draining`), or no engine "
        "(`unavailable`)",
        "deadline_exceeded",
        "not done by the request's deadline",
    ),
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        description, kind, message = _ERRORS[status]
        detail = ErrorDetail(type=kind, message=message, request_id=REQUEST_ID)
        responses[status] = {
            "model": ErrorBody,
            "description": description,
            "content": {"application/json": {"example": ErrorBody(error=detail).model_dump()}},
        }
        if status in (429, 503):
            responses[status]["headers"] = RETRY_AFTER
    return responses


def _body(model: type[Any]) -> dict[str, Any]:
    """The request body's examples, where readers of OpenAPI look for them."""
    examples = model.model_config["json_schema_extra"]["examples"]
    named = {f"example {n}": {"value": one} for n, one in enumerate(examples, start=1)}
    return {"requestBody": {"content": {"application/json": {"examples": named}}}}


_SOLVED = SolveResponse(
    id="5f0e8a4f6a6f4b0e9d3c2b1a09f8e7d6",
    triple=TRIPLE,
    answer="7",
    outcome="agreed",
    confidence=0.97,
    num_rounds=1,
    rounds=[
        RoundBody(
            intuitive=AttemptBody(rationale="12 - 5 = 7\n--> 7", answer="7"),
            knowledge="What is given away is subtracted from what was there.",
            deep=AttemptBody(rationale="Tom had 12 and gives 5: 12 - 5 = 7\n--> 7", answer="7"),
            agreed=True,
        )
    ],
    usage=Usage(num_generations=3, prompt_tokens=190, completion_tokens=61),
)
_ATTEMPT = AttemptEvent(round=1, role="intuitive_reasoner", text="12 - 5 = 7\n--> 7", answer="7")
_GRADED = [
    GradeResult(
        id="1",
        triple=TRIPLE,
        verdict="correct",
        answer="7",
        outcome="agreed",
        confidence=0.97,
        num_rounds=1,
        reason="answer and reference: the same number",
    ),
    GradeResult(
        id="2",
        verdict="incorrect",
        answer="8",
        reason="submission and reference: different numbers",
        feedback=Feedback(
            departure=DepartureBody(
                line=1,
                text="5 are given away: 12 - 5 = 8",
                claim="12 - 5 = 8",
                expected="7",
            ),
            hint=["What is given away is subtracted from what was there."],
        ),
    ),
    GradeResult(
        id="3",
        reason="bad item",
        error="give a reference, a submission, or both",
        error_type="bad_item",
    ),
]


def _summary() -> GradeSummaryLine:
    counts = GradeCounts()
    for result in _GRADED:
        counts.add(result)
    return GradeSummaryLine(summary=counts.summary())


def _written() -> dict[str, Any]:
    chat = Chat("lorid")
    chat.name, chat.created = "chatcmpl-5f0e8a4f6a6f4b0e9d3c2b1a09f8e7d6", 1_760_000_000
    text = "12 - 5 = 7\n--> 7\n\nThe answer is 7."
    sampled = Sampled(text=text, num_tokens=61, num_prompt_tokens=190)
    return chat.whole(Answered(triple=TRIPLE, answer=sampled))


_SOLVE_STREAM = (
    event("attempt", _ATTEMPT)
    + event("round", RoundEvent(round=1, body=_SOLVED.rounds[0]))
    + event("answer", _SOLVED)
)
_GRADE_STREAM = "".join(map(line, _GRADED)) + line(_summary())
_TEXT = {"schema": {"type": "string"}}
_EVENTS = {
    "schema": {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
        "required": ["data"],
    }
}

SOLVE: dict[str, Any] = {
    "summary": "Solve one question by mutual feedback",
    "response_model": SolveResponse,
    "responses": {
        200: {
            "description": "the answer; with `stream`, server-sent events `attempt`, `round`, "
            "then `answer` or `error`",
            "content": {
                "application/json": {"example": _SOLVED.model_dump()},
                SSE: {**_EVENTS, "example": _SOLVE_STREAM},
            },
        },
        **_errors(400, 401, 413, 422, 429, 500, 503),
    },
    "openapi_extra": _body(SolveRequest),
}
GRADE: dict[str, Any] = {
    "summary": "Grade up to 10,000 items",
    "response_model": GradeResponse,
    "responses": {
        200: {
            "description": "results in the order of the items; with `Accept: "
            "application/x-ndjson` a line a result as it finishes, then the summary",
            "content": {
                "application/json": {
                    "example": GradeResponse(
                        results=_GRADED, summary=_summary().summary
                    ).model_dump()
                },
                NDJSON: {**_TEXT, "example": _GRADE_STREAM},
            },
        },
        **_errors(400, 401, 413, 422, 429, 500, 503),
    },
    "openapi_extra": _body(GradeRequest),
}
CHAT: dict[str, Any] = {
    "summary": "OpenAI-compatible chat completions",
    "responses": {
        200: {
            "description": "OpenAI's body; with `stream`, its chunks as server-sent events and "
            "`data: [DONE]`",
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": _written()},
                SSE: {**_EVENTS, "example": "data: {...}\n\ndata: [DONE]\n\n"},
            },
        },
        **_errors(400, 401, 404, 413, 422, 429, 500, 503),
    },
    "openapi_extra": _body(ChatRequest),
}
_STATUS: dict[str, Any] = {
    "triple": TRIPLE, "draining": {}, "refused": None, "refused_because": None, "trouble": None,
    "num_questions": 3, "num_texts": 6,
}  # fmt: skip


def _plain(summary: str, description: str, example: Any, *statuses: int) -> dict[str, Any]:
    is_text = isinstance(example, str)
    one = {**(_TEXT if is_text else {"schema": {"type": "object"}}), "example": example}
    content = {"text/plain" if is_text else "application/json": one}
    return {
        "response_class": PlainTextResponse if is_text else JSONResponse,
        "summary": summary,
        "response_model": None,
        "responses": {
            200: {"description": description, "content": content},
            **_errors(*statuses),
        },
    }


LISTING = _plain(
    "The models that chat completions can name",
    "the models, and which triple the replica asked serves",
    {
        "object": "list",
        "data": [{"id": "lorid", "object": "model", "owned_by": "lorid", "triple": TRIPLE}],
        **_STATUS,
    },
    401, 500, 503,
)  # fmt: skip
HEALTH = _plain("Alive", "the process answers", {"status": "ok"})
READY = _plain(
    "Ready to answer",
    "the engine is loaded, and every adapter answers unlike the base",
    {"status": "ready", **_STATUS},
    503,
)
METRICS = _plain(
    "Prometheus text",
    "counters, gauges and histograms",
    'lorid_questions_total{outcome="agreed"} 12.0\n',
    401,
)
CARD: dict[str, Any] = {
    "summary": "The card of the triple that is served",
    "response_model": TripleCard,
    "responses": {
        200: {
            "description": "what is known of it; code is between backticks",
            "content": {
                "application/json": {
                    "example": TripleCard(
                        triple=TRIPLE, facts=[Fact(name="rule", value="`paper`, at most 20 rounds")]
                    ).model_dump()
                }
            },
        },
        **_errors(401, 500, 503),
    },
}

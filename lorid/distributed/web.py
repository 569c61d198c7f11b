"""The routes: FastAPI over the graph, as `docs/http-api.md` describes them.

    app = make_web(make_endpoint(handle, serving, tokens=tokens))

Bodies are those of `lorid.api`; every error has the shape `{"error": {type, message, request_id}}`
and shows nothing of the inside. What holds for every route is in `lorid.distributed.edge`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from lorid.api import (
    AttemptEvent,
    ChatRequest,
    GradeCounts,
    GradeRequest,
    GradeResponse,
    GradeResult,
    GradeSummaryLine,
    RoundEvent,
    SolveRequest,
    SolveResponse,
    TripleCard,
)
from lorid.distributed import openapi
from lorid.distributed.bodies import Answered, cause_of, explained, failure_of, solve_body
from lorid.distributed.edge import Edge, error_response, facts_of
from lorid.distributed.endpoint import Endpoint, make_endpoint
from lorid.distributed.metrics import CONTENT_TYPE
from lorid.distributed.page import add_page
from lorid.distributed.streaming import (
    DEADLINE,
    NDJSON,
    SSE,
    Chat,
    DeadlineExceeded,
    begun,
    error_body,
    event,
    line,
    until,
    words_of,
)
from lorid.errors import AdapterIdle, LoridError
from lorid.method.feedback import Sampled, Transcript
from lorid.method.roles import Role
from lorid.serving import ServingConfig

MODELS: Mapping[str, str | None] = {
    "lorid": None,
    **{f"lorid:{role}": str(role) for role in Role},
    "lorid:base": None,
}


def models_of(serving: ServingConfig) -> list[str]:
    """The models that chat completions can name; merged weights leave no base."""
    return [name for name in MODELS if name != "lorid:base" or serving.layout != "merged"]


def make_web(endpoint: Endpoint) -> ASGIApp:
    """The whole HTTP side of the endpoint."""
    edge = Edge(
        make_routes(endpoint),
        serving=endpoint.serving,
        tokens=endpoint.tokens,
        admission=endpoint.admission,
        metrics=endpoint.metrics,
    )
    if not endpoint.serving.cors_origins:
        return edge
    return CORSMiddleware(
        edge,
        allow_origins=list(endpoint.serving.cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "Accept", "X-Request-Id"],
        expose_headers=["X-Request-Id", "Retry-After"],
    )


def make_routes(endpoint: Endpoint) -> FastAPI:
    """The routes alone; their schema is the published one."""
    web = FastAPI(**openapi.ABOUT)
    routes = Routes(endpoint)
    add = web.add_api_route
    post, get = {"methods": ["POST"]}, {"methods": ["GET"]}
    add("/v1/solve", routes.solve, **post, **openapi.SOLVE)
    add("/v1/grade", routes.grade, **post, **openapi.GRADE)
    add("/v1/chat/completions", routes.chat, **post, **openapi.CHAT)
    add("/v1/models", routes.models, **get, **openapi.LISTING)
    add("/healthz", routes.healthz, **get, **openapi.HEALTH)
    add("/readyz", routes.readyz, **get, **openapi.READY)
    add("/metrics", routes.metrics, **get, **openapi.METRICS)
    add("/v1/triple", routes.card, **get, **openapi.CARD)
    add_page(web)
    web.add_exception_handler(RequestValidationError, bad_body)
    web.add_exception_handler(HTTPException, refused)
    web.add_exception_handler(Exception, failed)
    # Starlette raises again what its handler of `Exception` has answered; these it does not.
    for kind in (DeadlineExceeded, LoridError):
        web.add_exception_handler(kind, failed)
    return web


def schema() -> dict[str, Any]:
    """The published OpenAPI document; needs no engine."""
    return make_routes(make_endpoint(None, ServingConfig(), tokens=None)).openapi()


async def bad_body(request: Request, error: Exception) -> Response:
    """A body that does not fit: every problem with its place."""
    assert isinstance(error, RequestValidationError)
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    return refusal(request, 422, "; ".join(problems)[:2000], kind="invalid_request")


async def refused(request: Request, error: Exception) -> Response:
    """Unknown routes and methods, and bodies that are too large or no text."""
    assert isinstance(error, HTTPException)
    kinds = {404: "not_found", 405: "not_found", 413: "too_large"}
    kind = kinds.get(error.status_code, "invalid_request")
    response = refusal(request, error.status_code, str(error.detail), kind=kind)
    response.headers.update(error.headers or {})
    return response


async def failed(request: Request, error: Exception) -> Response:
    """Anything else; nothing of the inside is shown."""
    failure = DEADLINE if isinstance(error, DeadlineExceeded) else failure_of(error)
    return refusal(
        request,
        failure.status,
        failure.message,
        kind=failure.kind,
        retry_after_s=1 if failure.status == 503 else None,
    )


def refusal(
    request: Request, status: int, message: str, *, kind: str, retry_after_s: int | None = None
) -> Response:
    """An error, noted for the audit log and counted."""
    facts = facts_of(request.scope)
    facts.notes["error"] = kind
    return error_response(
        status, message, kind=kind, request_id=facts.request_id, retry_after_s=retry_after_s
    )


class Routes:
    """One method a route."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.student, self.metrics_of = endpoint.student, endpoint.metrics

    async def solve(self, body: SolveRequest, request: Request) -> Response:
        """Solve one question by mutual feedback; with `stream`, say what happens as it does."""
        self._take_question(body.question, request)
        if body.stream:
            events = self._solve_events(body, request)
            return StreamingResponse(await begun(events), media_type=SSE)
        solved = await self._solved(body, request)
        return _json(solve_body(solved))

    async def grade(self, body: GradeRequest, request: Request) -> Response:
        """Grade a batch; results in the order of the items, or as they finish as NDJSON."""
        limit = self.endpoint.serving.max_items
        if len(body.items) > limit:
            message = f"items: this endpoint takes {limit} items at a time"
            return refusal(request, 422, message, kind="invalid_request")
        facts_of(request.scope).notes["num_items"] = len(body.items)
        if NDJSON in request.headers.get("accept", ""):
            return StreamingResponse(self._grade_lines(body, request), media_type=NDJSON)
        counts = GradeCounts()
        results: dict[int, GradeResult] = {}
        async for number, result in self._graded(body, request):
            counts.add(result)
            results[number] = result
        ordered = [results[number] for number in sorted(results)]
        return _json(GradeResponse(results=ordered, summary=counts.summary()))

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """OpenAI-compatible: `lorid` by mutual feedback, one role, or the base alone."""
        if body.model not in models_of(self.endpoint.serving):
            message = f"unknown model {body.model!r}; GET /v1/models lists them"
            return refusal(request, 404, message, kind="not_found")
        questions = [message.content for message in body.messages if message.role == "user"]
        if not questions:
            message = "messages: none of the user"
            return refusal(request, 422, message, kind="invalid_request")
        self._take_question(questions[-1], request)
        facts_of(request.scope).notes["model"] = body.model
        if body.stream:
            chunks = self._chat_events(questions[-1], body, request)
            return StreamingResponse(await begun(chunks), media_type=SSE)
        written = await self._written(questions[-1], body, request)
        return JSONResponse(Chat(body.model).whole(written))

    async def models(self) -> dict[str, Any]:
        """The models that chat completions can name, and what the replica asked serves."""
        status = await self.student.status()
        about = {"object": "model", "owned_by": "lorid", "triple": status["triple"]}
        names = models_of(self.endpoint.serving)
        return {"object": "list", "data": [{"id": name, **about} for name in names], **status}

    async def healthz(self) -> dict[str, str]:
        """Alive."""
        return {"status": "ok"}

    async def readyz(self, request: Request) -> Response:
        """Ready: the engine is loaded, and each adapter answers unlike the base.

        Says too which triple the replica asked serves, and why not another that it should; with a
        token where the endpoint has tokens.
        """
        if self.endpoint.admission.is_draining:
            message = "this endpoint is going away"
            return refusal(request, 503, message, kind="draining", retry_after_s=1)
        is_known = facts_of(request.scope).is_known
        try:
            status = await self.student.ready()
        except Exception as error:
            cause = cause_of(error)
            # What lorid itself refuses, such as an adapter that does not fit, will not mend itself.
            kind = "cannot_start" if isinstance(cause, LoridError) else "not_ready"
            kind = "idle_adapters" if isinstance(cause, AdapterIdle) else kind
            message = str(cause) if is_known and isinstance(cause, LoridError) else kind
            return refusal(request, 503, message, kind=kind, retry_after_s=1)
        return JSONResponse({"status": "ready", **(status if is_known else {})})

    async def metrics(self) -> Response:
        """Prometheus text."""
        text = await asyncio.to_thread(self.metrics_of.text)
        return Response(text, media_type=CONTENT_TYPE)

    async def card(self) -> TripleCard:
        """What is known of the triple that is served."""
        return await self.student.card()

    def _take_question(self, question: str, request: Request) -> None:
        if self.endpoint.serving.log_questions:
            facts_of(request.scope).notes["question"] = question
        limit = self.endpoint.serving.max_question_chars
        if len(question) > limit:
            raise HTTPException(422, f"question: this endpoint takes {limit} characters")

    async def _solved(self, body: SolveRequest, request: Request) -> Answered[Transcript]:
        facts = facts_of(request.scope)
        try:
            async with asyncio.timeout_at(facts.deadline_within(body.timeout_s)):
                solved = await self.student.solve(body)
        except TimeoutError as error:
            raise DeadlineExceeded from error
        self._note_solved(solved, request)
        return solved

    def _note_solved(self, solved: Answered[Transcript], request: Request) -> None:
        # When the answer is on its way.
        asyncio.get_running_loop().call_soon(self.metrics_of.solved, solved)
        facts_of(request.scope).notes |= {
            "outcome": solved.answer.outcome.value,
            "num_rounds": len(solved.answer.rounds),
            "triple": solved.triple,
        }

    async def _solve_events(self, body: SolveRequest, request: Request) -> AsyncIterator[str]:
        facts = facts_of(request.scope)
        has_begun = False
        try:
            deadline = facts.deadline_within(body.timeout_s)
            async for one in until(deadline, self.student.solve_stream(body)):
                if isinstance(one, AttemptEvent):
                    yield event("attempt", one)
                elif isinstance(one, RoundEvent):
                    yield event("round", one)
                else:
                    self._note_solved(one, request)
                    yield event("answer", solve_body(one))
                has_begun = True
        except Exception as error:
            if not has_begun:
                raise
            body_ = error_body(error, request_id=facts.request_id)
            facts.notes["error"] = body_.error.type
            yield event("error", body_)

    async def _graded(
        self, body: GradeRequest, request: Request
    ) -> AsyncIterator[tuple[int, GradeResult]]:
        facts = facts_of(request.scope)
        if self.endpoint.serving.log_questions:
            facts.notes["questions"] = [item.get("question") for item in body.items]
        num_errors = 0
        results = self.endpoint.grader.results(
            body.items, body, deadline=facts.deadline_within(body.timeout_s)
        )
        async for number, result in results:
            num_errors += result.error is not None
            facts.notes["num_errors"] = num_errors
            yield number, result

    async def _grade_lines(self, body: GradeRequest, request: Request) -> AsyncIterator[str]:
        counts = GradeCounts()
        async for _, result in self._graded(body, request):
            counts.add(result)
            yield line(result)
        yield line(GradeSummaryLine(summary=counts.summary()))

    async def _written(
        self, question: str, body: ChatRequest, request: Request
    ) -> Answered[Sampled]:
        if body.model == "lorid":
            wanted = SolveRequest(question=question, seed=body.seed, timeout_s=body.timeout_s)
            solved = await self._solved(wanted, request)
            return Answered(triple=solved.triple, answer=_told(solved.answer))
        facts = facts_of(request.scope)
        try:
            async with asyncio.timeout_at(facts.deadline_within(body.timeout_s)):
                written = await self.student.answer_alone(
                    question, MODELS[body.model], body.seed, body.token_limit
                )
        except TimeoutError as error:
            raise DeadlineExceeded from error
        self.metrics_of.wrote(written)
        return written

    async def _pieces(
        self, question: str, body: ChatRequest, request: Request
    ) -> AsyncIterator[str | Answered[Sampled]]:
        """The text piece by piece, then the whole; mutual feedback has it all at once."""
        if body.model == "lorid":
            written = await self._written(question, body, request)
            for word in words_of(written.answer.text):
                yield word
            yield written
            return
        deadline = facts_of(request.scope).deadline_within(body.timeout_s)
        pieces = self.student.answer_alone_stream(
            question, MODELS[body.model], body.seed, body.token_limit
        )
        async for piece in until(deadline, pieces):
            if isinstance(piece, Answered):
                self.metrics_of.wrote(piece)
            yield piece

    async def _chat_events(
        self, question: str, body: ChatRequest, request: Request
    ) -> AsyncIterator[str]:
        chat = Chat(body.model)
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        has_begun = False
        try:
            async for piece in self._pieces(question, body, request):
                if isinstance(piece, str):
                    yield _data(chat.piece(piece))
                    has_begun = True
                    continue
                for chunk in chat.end(piece, with_usage=with_usage):
                    yield _data(chunk)
        except Exception as error:
            if not has_begun:
                raise
            facts = facts_of(request.scope)
            body_ = error_body(error, request_id=facts.request_id)
            facts.notes["error"] = body_.error.type
            yield _data(body_.model_dump())
        yield "data: [DONE]\n\n"


def _json(body: SolveResponse | GradeResponse) -> Response:
    """The body as it is: checked once, when it was made."""
    return Response(body.model_dump_json(), media_type="application/json")


def _data(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def _told(transcript: Transcript) -> Sampled:
    return Sampled(
        text=explained(transcript),
        num_tokens=transcript.num_tokens,
        num_prompt_tokens=transcript.num_prompt_tokens,
    )

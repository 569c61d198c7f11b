"""The HTTP ingress: FastAPI in front of the graph.

Bodies are those of `lorid.api`; every error has the shape `{"error": {type, message, request_id}}`
and shows nothing of the inside. One bad item of a batch is an error on that item.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from ray import serve
from starlette.exceptions import HTTPException

from lorid.api import (
    ChatRequest,
    ErrorBody,
    ErrorDetail,
    GradeItem,
    GradeRequest,
    GradeResponse,
    GradeResult,
    SolveRequest,
    SolveResponse,
    Transcript,
    Usage,
    summarize_results,
)
from lorid.distributed.bodies import (
    cause_of,
    completion_body,
    explained,
    readable,
    rounds_body,
    sendable,
)
from lorid.errors import LoridError, PromptTooLong
from lorid.method import feedback
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Sampled
from lorid.method.problems import MAX_ID_CHARS
from lorid.method.roles import Role
from lorid.method.stopping import Outcome

MAX_BODY_BYTES = 32 * 1024**2
MODELS: Mapping[str, str | None] = {
    "lorid": None,
    **{f"lorid:{role}": str(role) for role in Role},
    "lorid:base": None,
}

web = FastAPI(title="lorid", summary="Solves and grades mathematics by mutual feedback.")


def error_response(status: int, message: str, *, kind: str) -> JSONResponse:
    """An error in the one shape that all errors have."""
    detail = ErrorDetail(type=kind, message=sendable(message), request_id=uuid.uuid4().hex[:16])
    return JSONResponse(ErrorBody(error=detail).model_dump(), status_code=status)


@web.exception_handler(RequestValidationError)
async def bad_body(request: Request, error: RequestValidationError) -> JSONResponse:
    """A body that does not fit: every problem with its place."""
    problems = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    return error_response(422, "; ".join(problems)[:2000], kind="invalid_request")


@web.exception_handler(HTTPException)
async def refused(request: Request, error: HTTPException) -> JSONResponse:
    """Unknown routes and methods."""
    return error_response(error.status_code, str(error.detail), kind="http_error")


@web.exception_handler(Exception)
async def failed(request: Request, error: Exception) -> JSONResponse:
    """Anything else: lorid's own errors are safe to show, others are not.

    An error of the engine's replica is of lorid's class here, but its text is Ray's traceback.
    """
    if isinstance(cause_of(error), PromptTooLong):
        return error_response(422, readable(error), kind="invalid_request")
    return error_response(500, readable(error), kind="internal_error")


@web.middleware("http")
async def bounded_body(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Refuse large bodies before they are read."""
    length = request.headers.get("content-length", "")
    if request.method == "POST" and (not length.isdigit() or int(length) > MAX_BODY_BYTES):
        status = 413 if length.isdigit() else 411
        message = f"send a Content-Length of at most {MAX_BODY_BYTES} bytes"
        return error_response(status, message, kind="too_large")
    return await call_next(request)


@serve.ingress(web)
class Ingress:
    """Routes; the work is done by the StudentEngine behind `student`."""

    def __init__(self, student: Any, max_concurrent_questions: int) -> None:
        self.student = student
        self.checker = AnswerChecker()
        # A large batch must not flood the engine's queue: it hands over what can run, and a bit.
        self.max_items_in_flight = 2 * max_concurrent_questions

    @web.post("/v1/solve")
    async def solve(self, body: SolveRequest) -> SolveResponse:
        """Solve one question by mutual feedback."""
        transcript = await self.student.solve.remote(body)
        return SolveResponse(
            id=uuid.uuid4().hex,
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

    @web.post("/v1/grade")
    async def grade(self, body: GradeRequest) -> GradeResponse:
        """Grade a batch; the order of the results is that of the items."""
        slots = asyncio.Semaphore(self.max_items_in_flight)

        async def graded(number: int, item: dict[str, Any]) -> GradeResult:
            async with slots:
                return await self._grade(number, item, body)

        results = await asyncio.gather(
            *(graded(number, item) for number, item in enumerate(body.items, start=1))
        )
        return GradeResponse(results=results, summary=summarize_results(list(results)))

    @web.post("/v1/chat/completions", response_model=None)
    async def chat(self, body: ChatRequest) -> dict[str, Any] | JSONResponse:
        """OpenAI-compatible: `lorid` by mutual feedback, one role, or the base alone."""
        if body.stream:
            return error_response(400, "stream is not supported yet", kind="invalid_request")
        if body.model not in MODELS:
            message = f"unknown model {body.model!r}; GET /v1/models lists them"
            return error_response(404, message, kind="not_found")
        questions = [message.content for message in body.messages if message.role == "user"]
        if not questions:
            return error_response(422, "messages: none of the user", kind="invalid_request")
        sampled = await self._answer(questions[-1], body)
        return completion_body(body.model, sampled)

    @web.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        """The models that chat completions can name."""
        data = [{"id": name, "object": "model", "owned_by": "lorid"} for name in MODELS]
        return {"object": "list", "data": data}

    @web.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Alive."""
        return {"status": "ok"}

    @web.get("/readyz", response_model=None)
    async def readyz(self) -> dict[str, str] | JSONResponse:
        """Ready: the engine is loaded, and each adapter answers unlike the base."""
        try:
            idle = await self.student.idle_adapters.remote()
        except Exception as error:
            # What lorid itself refuses, such as an adapter that does not fit, will not mend itself.
            kind = "cannot_start" if isinstance(cause_of(error), LoridError) else "not_ready"
            return error_response(503, readable(error), kind=kind)
        if idle:
            message = f"these adapters answer like the base: {', '.join(idle)}"
            return error_response(503, message, kind="idle_adapters")
        return {"status": "ready"}

    @web.get("/")
    async def root(self) -> dict[str, str]:
        """Where to go."""
        return {"name": "lorid", "documentation": "/docs", "schema": "/openapi.json"}

    async def _answer(self, question: str, body: ChatRequest) -> Sampled:
        if body.model != "lorid":
            return await self.student.answer_alone.remote(question, MODELS[body.model], body.seed)
        transcript = await self.student.solve.remote(
            SolveRequest(question=question, seed=body.seed)
        )
        return Sampled(
            text=explained(transcript),
            num_tokens=transcript.num_tokens,
            num_prompt_tokens=transcript.num_prompt_tokens,
        )

    async def _grade(self, number: int, raw: dict[str, Any], body: GradeRequest) -> GradeResult:
        name = raw.get("id")
        item_id = sendable(name) if isinstance(name, str) and name else f"item {number}"
        try:
            item = GradeItem.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            problem = sendable(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
            return GradeResult(id=item_id[:MAX_ID_CHARS], reason="bad item", error=problem)
        if item.reference is None and item.submission is None:
            problem = "give a reference, a submission, or both"
            return GradeResult(id=item.id, reason="bad item", error=problem)
        try:
            return await self._judge(item, body)
        except Exception as error:
            # Errors of the replica arrive wrapped; only lorid's own text is shown.
            return GradeResult(id=item.id, reason="not solved", error=readable(error))

    async def _judge(self, item: GradeItem, body: GradeRequest) -> GradeResult:
        if item.reference is not None and item.submission is not None:
            verdict = self.checker.verdict(item.submission, item.reference)
            return GradeResult(
                id=item.id,
                verdict="correct" if verdict.equal else "incorrect",
                answer=item.submission,
                reason=f"submission and reference: {verdict.reason}",
            )
        transcript = await self.student.solve.remote(
            SolveRequest(
                question=item.question,
                max_rounds=body.max_rounds,
                rule=body.rule,
                seed=body.seed,
            )
        )
        solved = GradeResult(
            id=item.id,
            answer=transcript.answer,
            outcome=transcript.outcome.value,
            confidence=transcript.confidence,
            num_rounds=len(transcript.rounds),
            reason="",
            transcript=Transcript(
                rounds=rounds_body(transcript),
                attempts=transcript.attempts_row(problem_id=item.id, gold=item.reference),
            )
            if body.include_transcripts
            else None,
        )
        return self._compared(solved, item, transcript)

    def _compared(
        self, solved: GradeResult, item: GradeItem, transcript: feedback.Transcript
    ) -> GradeResult:
        answer = transcript.answer
        if item.submission is not None and transcript.outcome is not Outcome.AGREED:
            update = {"verdict": "undecided", "reason": "no agreement to compare with"}
        elif answer is None:
            update = {"verdict": "incorrect", "reason": "no answer"}
        else:
            verdict = self.checker.verdict(answer, item.reference or item.submission or "")
            against = "reference" if item.reference is not None else "submission"
            update = {
                "verdict": "correct" if verdict.equal else "incorrect",
                "reason": f"answer and {against}: {verdict.reason}",
            }
        return solved.model_copy(update=update)

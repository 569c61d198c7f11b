"""Grading: items in, verdicts out, as they finish; nothing is kept but what is under way.

    grader = Grader(student, checker, metrics, max_items_in_flight=128)
    async for number, result in grader.results(items, request, deadline=...):
        ...

One bad item is an error on that item. All batches of the endpoint share `max_items_in_flight`, so
that none fills the replicas' queues. Leaving the iterator cancels what it has under way.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from pydantic import ValidationError

from lorid.api import GradeItem, GradeRequest, GradeResult, SolveRequest, Transcript
from lorid.distributed.admission import Admission
from lorid.distributed.bodies import failure_of, rounds_body, sendable
from lorid.distributed.calls import Student
from lorid.distributed.metrics import Metrics
from lorid.distributed.tutor import Tutor
from lorid.method import feedback
from lorid.method.equivalence import AnswerChecker, Verdict, is_plain
from lorid.method.problems import MAX_ID_CHARS
from lorid.method.stopping import Outcome
from lorid.method.tutoring import answer_of

# Finished results that the client has not taken yet; a slow client slows its batch down.
MAX_UNREAD = 64


class Grader:
    """Grades the batches of one endpoint."""

    def __init__(
        self,
        student: Student,
        checker: AnswerChecker,
        *,
        metrics: Metrics,
        admission: Admission,
        max_items_in_flight: int,
        max_question_chars: int,
    ) -> None:
        self.student, self.checker = student, checker
        self.metrics, self.admission = metrics, admission
        self.max_items_in_flight = max_items_in_flight
        self.max_question_chars = max_question_chars
        self.tutor = Tutor(student, metrics)
        self.slots = asyncio.Semaphore(max_items_in_flight)

    async def results(
        self, items: list[dict[str, Any]], body: GradeRequest, *, deadline: float
    ) -> AsyncIterator[tuple[int, GradeResult]]:
        """Numbers (from 0) and results, in the order in which they finish.

        Items that are not done at the deadline are errors, as are those not begun when the endpoint
        goes away. `items` is emptied on the way.
        """
        todo = deque(enumerate(items))
        items.clear()
        done: asyncio.Queue[tuple[int, GradeResult]] = asyncio.Queue(MAX_UNREAD)
        num_left = len(todo)

        async def work() -> None:
            while todo:
                number, raw = todo.popleft()
                await done.put((number, await self._in_time(number, raw, body, deadline)))

        workers = [
            asyncio.create_task(work()) for _ in range(min(num_left, self.max_items_in_flight))
        ]
        try:
            while num_left:
                number, result = await done.get()
                num_left -= 1
                self.metrics.verdicts.labels(result.verdict or "error").inc()
                if result.error_type is not None:
                    self.metrics.errors.labels(result.error_type).inc()
                yield number, result
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _in_time(
        self, number: int, raw: dict[str, Any], body: GradeRequest, deadline: float
    ) -> GradeResult:
        name = raw.get("id")
        item_id = sendable(name) if isinstance(name, str) and name else f"item {number + 1}"
        item_id = item_id[:MAX_ID_CHARS]
        try:
            async with asyncio.timeout_at(deadline), self.slots:
                if self.admission.is_draining:
                    return _failed(item_id, "draining", "this endpoint is going away; try again")
                with self.metrics.items_inside.track_inprogress():
                    return await self._grade(item_id, raw, body, deadline=deadline)
        except TimeoutError:
            return _failed(item_id, "deadline_exceeded", "not done by the request's deadline")

    async def _grade(
        self, item_id: str, raw: dict[str, Any], body: GradeRequest, *, deadline: float
    ) -> GradeResult:
        try:
            item = GradeItem.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            problem = sendable(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
            return _failed(item_id, "bad_item", problem[:500])
        if item.reference is None and item.submission is None:
            return _failed(item_id, "bad_item", "give a reference, a submission, or both")
        if len(item.question) > self.max_question_chars:
            problem = f"question: this endpoint takes {self.max_question_chars} characters"
            return _failed(item_id, "bad_item", problem)
        try:
            result, transcript = await self._judge(item, body)
        except Exception as error:
            failure = failure_of(error)
            return _failed(item_id, failure.kind, failure.message)
        if not body.include_feedback:
            return result
        note = await self.tutor.feedback(
            item, transcript=transcript, seed=body.seed, deadline=deadline
        )
        return result.model_copy(update={"feedback": note})

    async def _judge(
        self, item: GradeItem, body: GradeRequest
    ) -> tuple[GradeResult, feedback.Transcript | None]:
        """The verdict, and the transcript if the question was solved for it."""
        if item.reference is not None and item.submission is not None:
            answer, verdict = await self._submitted(item.submission, item.reference)
            return GradeResult(
                id=item.id,
                verdict="correct" if verdict.equal else "incorrect",
                answer=answer,
                reason=f"submission and reference: {verdict.reason}",
            ), None
        request = SolveRequest(
            question=item.question, max_rounds=body.max_rounds, rule=body.rule, seed=body.seed
        )
        answered = await self.student.solve(request, is_item=True)
        self.metrics.solved(answered)
        transcript = answered.answer
        solved = GradeResult(
            id=item.id,
            triple=answered.triple,
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
        return await self._compared(solved, item, transcript), transcript

    async def _submitted(self, submission: str, other: str) -> tuple[str, Verdict]:
        """What is submitted, compared: all of it, else the answer that its work comes to."""
        verdict = await self._verdict(submission, other)
        answer = submission if verdict.equal else answer_of(submission)
        return answer, verdict if answer == submission else await self._verdict(answer, other)

    async def _verdict(self, a: str, b: str) -> Verdict:
        """In a thread: a formula may take seconds, and the loop has other requests."""
        began = time.monotonic()
        try:
            if is_plain(a) and is_plain(b):
                return self.checker.verdict(a, b)
            return await asyncio.to_thread(self.checker.verdict, a, b)
        finally:
            self.metrics.latency.labels("compare").observe(time.monotonic() - began)

    async def _compared(
        self, solved: GradeResult, item: GradeItem, transcript: feedback.Transcript
    ) -> GradeResult:
        answer = transcript.answer
        if item.submission is not None and transcript.outcome is not Outcome.AGREED:
            update = {"verdict": "undecided", "reason": "no agreement to compare with"}
        elif answer is None:
            update = {"verdict": "incorrect", "reason": "no answer"}
        else:
            if item.reference is not None:
                named, verdict = "reference", await self._verdict(answer, item.reference)
            else:
                named = "submission"
                _, verdict = await self._submitted(item.submission or "", answer)
            update = {
                "verdict": "correct" if verdict.equal else "incorrect",
                "reason": f"answer and {named}: {verdict.reason}",
            }
        return solved.model_copy(update=update)


def _failed(item_id: str, kind: str, problem: str) -> GradeResult:
    reason = "bad item" if kind == "bad_item" else "not solved"
    return GradeResult(id=item_id, reason=reason, error=problem, error_type=kind)

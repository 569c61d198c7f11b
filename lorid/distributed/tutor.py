"""Feedback on an item: where its submission departs, and a hint.

    note = await Tutor(student, metrics).feedback(item, transcript=None, seed=7, deadline=...)

The rules of a hint are those of the round that decided, where the question was solved; else one
text of the knowledge generator is drawn. Feedback comes after the verdict and never changes it:
without an engine, or with no time left, there is no hint.
"""

import asyncio

from lorid.api import DepartureBody, Feedback, GradeItem
from lorid.distributed.bodies import failure_of, sendable
from lorid.distributed.calls import Student
from lorid.distributed.metrics import Metrics
from lorid.method.feedback import Sampled, Transcript
from lorid.method.roles import Role
from lorid.method.tutoring import answer_of, find_departure, hint_from

# Kept of an item's time for its verdict to leave.
MARGIN_S = 0.5


class Tutor:
    """Says what a tutor would say; one for all batches."""

    def __init__(self, student: Student, metrics: Metrics) -> None:
        self.student, self.metrics = student, metrics

    async def feedback(
        self,
        item: GradeItem,
        *,
        transcript: Transcript | None,
        seed: int | None,
        deadline: float,
    ) -> Feedback:
        """The departure of the submission, if it has one, and the rules of a hint."""
        answers = _secrets(item, transcript)
        drawn = _drawn(transcript)
        if drawn is None:
            drawn = await self._draw(item.question, seed=seed, deadline=deadline)
        # In a thread: both are bounded, and long texts take a while.
        departure, hint = await asyncio.to_thread(_told, item, drawn, answers)
        return Feedback(departure=departure, hint=hint)

    async def _draw(self, question: str, *, seed: int | None, deadline: float) -> Sampled:
        try:
            async with asyncio.timeout_at(deadline - MARGIN_S):
                answered = await self.student.answer_alone(
                    question, Role.KNOWLEDGE_GENERATOR.value, seed, None, is_item=True
                )
        except TimeoutError:
            return Sampled(text="")
        except Exception as error:
            # The log has it; the verdict stands.
            failure_of(error)
            return Sampled(text="")
        self.metrics.wrote(answered)
        return answered.answer


def _drawn(transcript: Transcript | None) -> Sampled | None:
    """The newest knowledge of a transcript."""
    rounds = transcript.rounds if transcript is not None else ()
    for one in reversed(rounds):
        if one.knowledge is not None:
            return Sampled(text=one.knowledge)
    return None


def _secrets(item: GradeItem, transcript: Transcript | None) -> list[str]:
    """What a hint must not tell: the reference, and every answer that was found."""
    known = [item.reference]
    for one in transcript.rounds if transcript is not None else ():
        known += [side.answer for side in (one.intuitive, one.deep) if side is not None]
    return list(dict.fromkeys(answer_of(one) for one in known if one))


def _told(
    item: GradeItem, drawn: Sampled, answers: list[str]
) -> tuple[DepartureBody | None, list[str]]:
    found = find_departure(item.submission or "", question=item.question)
    departure = None
    if found is not None:
        departure = DepartureBody(
            line=found.line,
            text=sendable(found.text),
            claim=sendable(found.claim),
            expected=found.expected,
        )
    hint = hint_from(drawn.text, question=item.question, answers=answers, truncated=drawn.truncated)
    return departure, [sendable(rule) for rule in hint]

"""The parts of one endpoint, put together around a handle of the StudentEngine."""

from dataclasses import dataclass
from typing import Any

from lorid.distributed.access import Tokens
from lorid.distributed.admission import Admission
from lorid.distributed.calls import Student
from lorid.distributed.grading import Grader
from lorid.distributed.metrics import Metrics
from lorid.method.equivalence import AnswerChecker
from lorid.serving import ServingConfig


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What the routes work with."""

    student: Student
    grader: Grader
    serving: ServingConfig
    metrics: Metrics
    admission: Admission
    tokens: Tokens | None


def make_endpoint(handle: Any, serving: ServingConfig, *, tokens: Tokens | None) -> Endpoint:
    """What the routes need, around a Serve handle of the StudentEngine."""
    metrics = Metrics()
    admission = Admission({"question": serving.max_questions, "batch": serving.max_batches})
    metrics.show(admission)
    student = Student(handle, on_lost=metrics.retries.inc, may_sleep=serving.may_sleep)
    grader = Grader(
        student,
        AnswerChecker(),
        metrics=metrics,
        admission=admission,
        max_items_in_flight=serving.max_items_in_flight,
        max_question_chars=serving.max_question_chars,
    )
    return Endpoint(
        student=student,
        grader=grader,
        serving=serving,
        metrics=metrics,
        admission=admission,
        tokens=tokens,
    )

"""The ingress: the one deployment that HTTP reaches.

Its routes are in `lorid.distributed.web`. It starts only where it is protected: beyond loopback the
endpoint needs tokens. There is one of it, so that limits and metrics are those of the endpoint.
"""

from typing import Any

from ray import serve
from starlette.types import ASGIApp

from lorid.distributed.access import tokens_for
from lorid.distributed.admission import Admission
from lorid.distributed.calls import Student
from lorid.distributed.grading import Grader
from lorid.distributed.metrics import Metrics
from lorid.distributed.web import Endpoint, make_web
from lorid.method.equivalence import AnswerChecker
from lorid.serving import ServingConfig


def make_endpoint(handle: Any, serving: ServingConfig, *, host: str | None) -> Endpoint:
    """What the routes need, around a handle of the StudentEngine.

    Raises:
        ConfigError: the endpoint would be open to others than this machine.
    """
    tokens = tokens_for(host, serving.tokens_file)
    metrics = Metrics()
    admission = Admission({"question": serving.max_questions, "batch": serving.max_batches})
    metrics.show(admission)
    student = Student(handle, on_lost=metrics.retries.inc)
    grader = Grader(
        student,
        AnswerChecker(),
        metrics=metrics,
        admission=admission,
        # What can run, and as much that it never waits for this side.
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


class IngressBase:
    """Holds the endpoint's HTTP side in its replica."""

    def __init__(self, student: Any, serving_json: str) -> None:
        serving = ServingConfig.model_validate_json(serving_json)
        self.endpoint = make_endpoint(student, serving, host=listening_host())

    def __serve_build_asgi_app__(self) -> ASGIApp:  # noqa: N807
        """What Serve calls for the routes, in the replica."""
        return make_web(self.endpoint)

    async def drain(self) -> None:
        """From now on refuse what is new with 503; what runs goes on."""
        self.endpoint.admission.is_draining = True


Ingress: Any = serve.ingress()(IngressBase)


def listening_host() -> str | None:
    """Where Serve's proxies listen; None when that cannot be found out."""
    from ray.serve.context import _get_global_client

    try:
        client: Any = _get_global_client()
        return client.http_config.host
    except Exception:
        # A private way to ask: without an answer the endpoint takes itself for reachable.
        return None

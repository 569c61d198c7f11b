"""What `GET /metrics` tells Prometheus.

Every answer passes the one ingress, so it counts everything, whatever replica worked: replicas tell
with each answer how long it waited and what it cost. The registry is the endpoint's own; Ray's and
vLLM's metrics are on Ray's ports (docs/serving.md). After a restart counters begin at zero, which
Prometheus expects. deploy/grafana/lorid.json draws them.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lorid.distributed.admission import Admission
from lorid.distributed.bodies import Answered
from lorid.method.feedback import Sampled, Transcript

ROUTES = frozenset(
    {
        "/", "/v1/solve", "/v1/grade", "/v1/chat/completions", "/v1/models", "/healthz",
        "/readyz", "/metrics", "/openapi.json",
    }
)  # fmt: skip
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
ROUNDS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one ingress."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "lorid_requests", "HTTP requests", ["route", "status"], registry=self.registry
        )
        self.errors = Counter(
            "lorid_errors", "Errors of requests and of items", ["type"], registry=self.registry
        )
        self.latency = Histogram(
            "lorid_stage_seconds",
            "Seconds: queue and solve of a question, compare of two answers, request in all",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.questions = Counter(
            "lorid_questions", "Questions solved by mutual feedback", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.verdicts = Counter("lorid_items", "Graded items", ["verdict"], registry=self.registry)
        self.rounds = Histogram(
            "lorid_rounds", "Rounds of a question", buckets=ROUNDS, registry=self.registry
        )
        self.generations = Counter(
            "lorid_generations", "Texts begun: used, or wasted", ["use"], registry=self.registry
        )
        self.tokens = Counter("lorid_tokens", "Tokens", ["kind"], registry=self.registry)
        self.inside = Gauge(
            "lorid_requests_inside", "Requests at work or waiting", ["kind"],
            registry=self.registry,
        )  # fmt: skip
        self.items_inside = Gauge(
            "lorid_items_inside", "Items of batches that are handed to replicas",
            registry=self.registry,
        )  # fmt: skip
        self.retries = Counter(
            "lorid_lost_calls", "Calls begun anew since their replica was lost",
            registry=self.registry,
        )  # fmt: skip

    def show(self, admission: Admission) -> None:
        """Let the gauges read the counts of what is inside."""
        for kind in admission.limits:
            self.inside.labels(kind).set_function(lambda kind=kind: admission.num_inside[kind])

    def answered(self, *, route: str, status: int, seconds: float, error: str | None) -> None:
        """One HTTP request has ended."""
        name = route if route in ROUTES else "other"
        self.requests.labels(name, str(status)).inc()
        if error is not None:
            self.errors.labels(error).inc()
        if name.startswith("/v1/"):
            self.latency.labels("request").observe(seconds)

    def solved(self, answered: Answered[Transcript]) -> None:
        """One question was solved."""
        transcript = answered.answer
        self.questions.labels(transcript.outcome.value).inc()
        self.rounds.observe(len(transcript.rounds))
        self.generations.labels("used").inc(transcript.num_generations - transcript.num_wasted)
        self.generations.labels("wasted").inc(transcript.num_wasted)
        self._cost(answered)

    def wrote(self, answered: Answered[Sampled]) -> None:
        """One text was written outside of mutual feedback."""
        self.generations.labels("used").inc()
        self._cost(answered)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def _cost(self, answered: Answered[Transcript] | Answered[Sampled]) -> None:
        answer = answered.answer
        self.tokens.labels("prompt").inc(answer.num_prompt_tokens)
        self.tokens.labels("cached_prompt").inc(answer.num_cached_tokens)
        self.tokens.labels("completion").inc(answer.num_tokens)
        self.latency.labels("queue").observe(answered.waited_s)
        self.latency.labels("solve").observe(answered.worked_s)

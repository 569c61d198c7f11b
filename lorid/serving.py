"""The sections of serving: what the endpoint allows, and how evaluation uses it.

ServingConfig(tokens_file="/etc/lorid/tokens", max_queued_questions=128)

docs/security.md says what each limit is for, docs/serving.md how requests share the engine.
"""

from typing import Annotated

from pydantic import Field

from lorid.method.problems import MAX_TEXT_CHARS
from lorid.sections import Section

# What one request may hold at most, whatever the config says.
MAX_ITEMS = 10_000


class ServingConfig(Section):
    """The endpoint.

    `max_concurrent_questions` is how many a replica works on at once; `max_queued_questions` more
    may wait, the next one is refused with 429. `max_batches` grading requests run at once; while
    single questions are there, items of batches get `batch_share` of the engine. A request may ask
    for a deadline up to `request_timeout_s`, a batch up to `batch_timeout_s`. `drain_timeout_s` is
    how long a replica that is stopped may finish what it has begun.

    `tokens_file` holds the hashes of the bearer tokens (`lorid token new`); without it the endpoint
    starts on loopback only. `cors_origins` are the sites whose pages may call it. `log_questions`
    puts the text of questions into the audit log.

    `alias_poll_s`: how often a replica that follows an alias looks where it points.
    `max_adapter_rank`: the highest rank that the engine holds; None takes that of the first triple,
    and a triple with a higher one then needs a restart.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    num_replicas: Annotated[int, Field(ge=1)] = 1
    max_concurrent_questions: Annotated[int, Field(ge=1)] = 64
    max_queued_questions: Annotated[int, Field(ge=0)] = 256
    max_batches: Annotated[int, Field(ge=1)] = 8
    batch_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    request_timeout_s: Annotated[float, Field(gt=0)] = 600
    batch_timeout_s: Annotated[float, Field(gt=0)] = 3600
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30
    tokens_file: Annotated[str, Field(min_length=1)] | None = None
    cors_origins: tuple[str, ...] = ()
    log_questions: bool = False
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024**2
    max_items: Annotated[int, Field(ge=1, le=MAX_ITEMS)] = MAX_ITEMS
    max_question_chars: Annotated[int, Field(ge=1, le=MAX_TEXT_CHARS)] = MAX_TEXT_CHARS
    alias_poll_s: Annotated[float, Field(gt=0)] = 10
    max_adapter_rank: Annotated[int, Field(ge=1, le=512)] | None = None

    @property
    def max_questions(self) -> int:
        """How many single questions the endpoint holds, running and waiting."""
        return self.num_replicas * self.max_concurrent_questions + self.max_queued_questions

    @property
    def max_items_in_flight(self) -> int:
        """How many items of batches are handed to the replicas: what can run, and as much again."""
        return 2 * self.num_replicas * self.max_concurrent_questions


class EvaluationConfig(Section):
    """Grading of the test split through the endpoint."""

    items_per_request: Annotated[int, Field(ge=1, le=1000)] = 32
    requests_in_flight: Annotated[int, Field(ge=1)] = 2
    grade_base: bool = True

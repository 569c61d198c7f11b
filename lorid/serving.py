"""The sections of serving: what the endpoint allows, and how evaluation uses it.

ServingConfig(tokens_file="/etc/lorid/tokens", max_queued_questions=128)

docs/security.md says what each limit is for, docs/serving.md how requests share the engine.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from lorid.errors import ConfigError
from lorid.method.problems import MAX_TEXT_CHARS
from lorid.method.stopping import LiveRule
from lorid.sections import MAX_RANK, Section

EVALUATION_PATTERN = r"^evaluation/[a-z0-9][a-z0-9._-]{0,62}/[0-9a-f]{12}$"
# What one request may hold at most, whatever the config says.
MAX_ITEMS = 10_000


Layout = Literal["shared", "split", "merged"]


class AutoscalingConfig(Section):
    """How many engines there are, by the requests in work or waiting.

    With `min_replicas` 0 nothing runs while nothing is asked, and the next question waits for an
    engine to start. `target_ongoing_requests` is how many one engine should have, None as many as
    it works on at once. More engines start after `upscale_delay_s` above it, fewer are left after
    `downscale_delay_s` below it; both look at the mean of `look_back_s`.
    """

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 2
    initial_replicas: Annotated[int, Field(ge=0)] | None = None
    target_ongoing_requests: Annotated[float, Field(gt=0)] | None = None
    upscale_delay_s: Annotated[float, Field(ge=0)] = 30
    downscale_delay_s: Annotated[float, Field(ge=0)] = 600
    look_back_s: Annotated[float, Field(gt=0)] = 30

    @field_validator("max_replicas")
    @classmethod
    def _not_fewer(cls, most: int, info: ValidationInfo) -> int:
        least = info.data.get("min_replicas", 0)
        if most < least:
            raise ValueError(f"{most} is less than min_replicas {least}; raise it or lower that")
        return most

    @field_validator("initial_replicas")
    @classmethod
    def _within(cls, first: int | None, info: ValidationInfo) -> int | None:
        least, most = info.data.get("min_replicas", 0), info.data.get("max_replicas", first)
        if first is not None and most is not None and not least <= first <= most:
            raise ValueError(f"{first} is not within min_replicas {least} and max_replicas {most}")
        return first


class ServingConfig(Section):
    """The endpoint.

    `layout` says where the three adapters live. `shared`: one engine holds them all. `split`: each
    role has an engine of its own, for bases that fill a GPU. `merged`: each role has an engine with
    its adapter merged into the base; it serves one triple only and not the base itself.
    `num_replicas` is how many engines there are (of each role), `autoscaling` says it by the load.
    `num_drivers`: where roles are apart, how many processes drive the rounds of questions.

    `max_concurrent_questions` is how many a replica works on at once; `max_queued_questions` more
    may wait, the next one is refused with 429. `max_batches` grading requests run at once; while
    single questions are there, items of batches get `batch_share` of the engine. A request may ask
    for a deadline up to `request_timeout_s`, a batch up to `batch_timeout_s`. `drain_timeout_s` is
    how long a replica that is stopped may finish what it has begun.

    `tokens_file` holds the hashes of the bearer tokens (`lorid token new`); without it the endpoint
    starts on loopback only. `cors_origins` are the sites whose pages may call it. `log_questions`
    puts the text of questions into the audit log.

    `otlp_endpoint` is the URL that takes OpenTelemetry traces by OTLP over HTTP, such as
    `http://127.0.0.1:4318/v1/traces`; None makes none.

    `alias_poll_s`: how often a replica that follows an alias looks where it points.
    `max_adapter_rank`: the highest rank that the engine holds; None takes that of the first triple,
    and a triple with a higher one then needs a restart.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    layout: Layout = "shared"
    num_replicas: Annotated[int, Field(ge=1)] = 1
    autoscaling: AutoscalingConfig | None = None
    num_drivers: Annotated[int, Field(ge=1)] = 1
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
    otlp_endpoint: str | None = None
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024**2
    max_items: Annotated[int, Field(ge=1, le=MAX_ITEMS)] = MAX_ITEMS
    max_question_chars: Annotated[int, Field(ge=1, le=MAX_TEXT_CHARS)] = MAX_TEXT_CHARS
    alias_poll_s: Annotated[float, Field(gt=0)] = 10
    max_adapter_rank: Annotated[int, Field(ge=1, le=MAX_RANK)] | None = None

    @field_validator("autoscaling")
    @classmethod
    def _one_of_both(
        cls, autoscaling: AutoscalingConfig | None, info: ValidationInfo
    ) -> AutoscalingConfig | None:
        if autoscaling is not None and info.data.get("num_replicas", 1) != 1:
            raise ValueError(
                "num_replicas is given too; leave that out, min_replicas and max_replicas say it"
            )
        return autoscaling

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            is_fit = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            is_fit, parts = False, urlsplit("")
        if not is_fit:
            raise ValueError("not a URL; give it such as http://127.0.0.1:4318/v1/traces")
        if parts.username or parts.password:
            raise ValueError("holds a password; put it into OTEL_EXPORTER_OTLP_TRACES_HEADERS")
        return url

    @field_validator("num_drivers")
    @classmethod
    def _only_apart(cls, num_drivers: int, info: ValidationInfo) -> int:
        if num_drivers > 1 and info.data.get("layout") == "shared":
            raise ValueError("in layout=shared each engine drives its own questions; leave it out")
        return num_drivers

    @property
    def roles_apart(self) -> bool:
        """Whether each role has an engine of its own."""
        return self.layout != "shared"

    @property
    def max_replicas(self) -> int:
        """The most engines at once, of each role where roles are apart."""
        return self.autoscaling.max_replicas if self.autoscaling else self.num_replicas

    @property
    def engines_of_a_driver(self) -> int:
        """How many engines' room (of each role) one process that drives questions shares out."""
        return -(-self.max_replicas // self.num_drivers) if self.roles_apart else 1

    @property
    def may_sleep(self) -> bool:
        """Whether no engine may run at times."""
        return self.autoscaling is not None and self.autoscaling.min_replicas == 0

    @property
    def max_questions(self) -> int:
        """How many single questions the endpoint holds, running and waiting."""
        return self.max_replicas * self.max_concurrent_questions + self.max_queued_questions

    @property
    def max_items_in_flight(self) -> int:
        """How many items of batches are handed to the replicas: what can run, and as much again."""
        return 2 * self.max_replicas * self.max_concurrent_questions


class EvaluationConfig(Section):
    """Evaluation: which questions, how they are asked, and what is done with failures.

    `mode`: "online" serves the triple and asks by HTTP, "offline" gives the questions to
    `num_engines` engines by Ray Data, with the same texts for the same seed and without HTTP.

    `questions` are the run's own test split, or a JSONL file of GSM8K, MATH or LoRID rows, or a
    split on the hub as ID:CONFIG:SPLIT; `num_questions` takes the first of them. `grade_base` also
    asks the base without an adapter.

    `draw_by` is the rule that rounds are drawn by, None the run's own: `majority` draws all of
    them, so that every rule can be replayed exactly. Questions whose log ends before the run's rule
    would have stopped are judged by the rounds there are; `redraw` asks them again. Questions that
    got no answer for a reason that may pass stop the stage, and the next run asks them again;
    `accept_errors` counts them as not answered.

    `compare` are addresses of other evaluations of the store (evaluation/NAME/VERSION), of other
    triples or bases: each is marked again by this run's rule and compared on the questions of both.

    One request holds `items_per_request` questions, and `requests_in_flight` run at once.
    """

    mode: Literal["online", "offline"] = "online"
    num_engines: Annotated[int, Field(ge=1)] = 1
    questions: Annotated[str, Field(min_length=1)] | None = None
    num_questions: Annotated[int, Field(ge=1)] | None = None
    grade_base: bool = True
    draw_by: LiveRule | None = None
    redraw: bool = False
    accept_errors: bool = False
    compare: tuple[Annotated[str, Field(pattern=EVALUATION_PATTERN)], ...] = ()
    items_per_request: Annotated[int, Field(ge=1, le=1000)] = 32
    requests_in_flight: Annotated[int, Field(ge=1)] = 2


def check_mode(evaluation: EvaluationConfig, serving: ServingConfig) -> None:
    """Raise ConfigError where the layout has not what the evaluation asks for."""
    if serving.layout == "merged" and evaluation.grade_base:
        raise ConfigError(
            "grade_base asks the base, which serving.layout=merged does not hold; set "
            "evaluation.grade_base=false or another layout"
        )
    if serving.layout != "shared" and evaluation.mode == "offline":
        raise ConfigError(
            f"evaluation.mode=offline has all roles in one engine, not serving.layout="
            f"{serving.layout}; set serving.layout=shared or evaluation.mode=online"
        )

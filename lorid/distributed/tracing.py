"""OpenTelemetry traces of the endpoint: where a question's time went, over processes.

    POST /v1/solve                          the ingress; goes on with the client's `traceparent`
      question                              the replica: the wait for its turn, the rounds
        text intuitive_reasoner             one text of the engine, with its tokens
        text knowledge_generator
        text deep_reasoner

Off unless `serving.otlp_endpoint` names a collector; spans go there in batches, in a thread, by
OTLP over HTTP, and none waits for it: what a collector that is away does not take is dropped.
Headers, sampling and resource attributes come from the standard `OTEL_*` variables. No span holds a
question, an answer, a text or an error's message.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from lorid.distributed.bodies import cause_of
from lorid.errors import ConfigError
from lorid.method.feedback import Sampled, Transcript

# The headers that carry a trace from one process to the next (W3C Trace Context).
Carrier = Mapping[str, str]
_PROPAGATOR = TraceContextTextMapPropagator()
# Where nothing is traced. OpenTelemetry's own tracer that does nothing is a tenth of a round.
NO_SPAN = nullcontext(INVALID_SPAN)


class Tracing:
    """Makes the spans of one process.

    Raises:
        ConfigError: a collector is named, but its exporter is not installed.
    """

    def __init__(self, otlp_endpoint: str | None) -> None:
        self.tracer = _provider(otlp_endpoint).get_tracer("lorid") if otlp_endpoint else None

    def span(
        self,
        name: str,
        *,
        parent: Carrier | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> AbstractContextManager[Span]:
        """A span around what runs inside; under `parent`, or under the current one."""
        if self.tracer is None:
            return NO_SPAN
        return self._span(self.tracer, name, parent=parent, kind=kind, attributes=attributes)

    @contextmanager
    def _span(
        self,
        tracer: Tracer,
        name: str,
        *,
        parent: Carrier | None,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue] | None,
    ) -> Iterator[Span]:
        with tracer.start_as_current_span(
            name,
            context=_PROPAGATOR.extract(parent, Context()) if parent is not None else None,
            kind=kind,
            attributes=attributes,
            # Messages and stack traces can hold what a user has sent.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                cause = cause_of(error) if isinstance(error, Exception) else error
                span.set_attribute("error.type", type(cause).__name__)
                span.set_status(StatusCode.ERROR)
                raise


def carrier() -> Carrier:
    """What another process needs to go on with the current span; empty where nothing is traced."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return headers


def told(answer: Transcript | Sampled) -> dict[str, AttributeValue]:
    """What a span says about an answer."""
    tokens: dict[str, AttributeValue] = {
        "gen_ai.usage.input_tokens": answer.num_prompt_tokens,
        "gen_ai.usage.output_tokens": answer.num_tokens,
    }
    if isinstance(answer, Sampled):
        reason = "length" if answer.truncated else "stop"
        return {**tokens, "gen_ai.response.finish_reasons": (reason,)}
    return {
        **tokens,
        "lorid.outcome": answer.outcome.value,
        "lorid.num_rounds": len(answer.rounds),
        "lorid.num_generations": answer.num_generations,
        "lorid.num_wasted": answer.num_wasted,
    }


@lru_cache(maxsize=8)
def _provider(otlp_endpoint: str) -> TracerProvider:
    """One a process and collector: each has a thread that sends."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigError(
            "serving.otlp_endpoint needs OpenTelemetry's exporter; `pip install 'lorid[otel]'`, "
            "or leave it out"
        ) from error
    service = os.environ.get("OTEL_SERVICE_NAME", "lorid")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
    return provider

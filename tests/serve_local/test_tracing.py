"""Traces, as a collector gets them by OTLP over HTTP."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import ValidationError
from scripting import TRIPLE, script, texts

from lorid.engines.scripted import ScriptedEngine
from lorid.errors import EngineError
from lorid.serving import ServingConfig

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.came = Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with collector.came:
                    collector.bodies.append(body)
                    collector.came.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        self.thread = Thread(target=self.server.serve_forever)
        self.thread.start()

    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, *names: str) -> list[Span]:
        """All spans, once there are at least these."""

        def are_there() -> bool:
            seen = [span.name for span in self.spans()]
            return all(seen.count(name) >= names.count(name) for name in names)

        with self.came:
            assert self.came.wait_for(are_there, timeout=20), [one.name for one in self.spans()]
            return self.spans()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "solver")
    collector = Collector()
    yield collector
    collector.stop()


def facts(span: Span) -> dict[str, object]:
    """A span's attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_question_is_one_trace_from_the_client_s_to_each_text(endpoint, collector):
    engine = ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("8", "7")))
    client = endpoint(engine, serving={"otlp_endpoint": collector.url})
    client.post("/v1/solve", json={"question": QUESTION}, headers={"traceparent": CLIENT})
    client.get("/healthz")
    roles = ["intuitive_reasoner", "knowledge_generator", "deep_reasoner"]
    spans = collector.wait_for(*(f"text {role}" for role in roles * 2), "POST /v1/solve")
    named = {span.name: span for span in spans}
    assert {span.trace_id.hex() for span in spans} == {CLIENT.split("-")[1]}
    request, question = named["POST /v1/solve"], named["question"]
    assert request.parent_span_id.hex() == CLIENT.split("-")[2]
    assert question.parent_span_id == request.span_id
    written = [span for span in spans if span.name.startswith("text ")]
    assert len(written) == 6
    assert len(spans) == 8
    for span in written:
        assert span.parent_span_id == question.span_id
        assert question.start_time_unix_nano <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= question.end_time_unix_nano
    assert facts(request)["http.response.status_code"] == 200
    about = facts(question)
    assert (about["lorid.triple"], about["lorid.outcome"]) == (TRIPLE, "agreed")
    assert (about["lorid.num_rounds"], about["lorid.num_generations"]) == (2, 6)
    rounds = [facts(span)["lorid.round"] for span in written]
    assert sorted(rounds) == [1, 1, 1, 2, 2, 2]
    assert facts(written[0])["gen_ai.usage.input_tokens"] == 1


def test_items_streams_and_chats_are_traced_and_no_text_is_in_a_span(endpoint, collector):
    def fail(_):
        raise EngineError("the engine says: secret words")

    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7"), base=[fail]))
    client = endpoint(engine, serving={"otlp_endpoint": collector.url})
    item = {"id": "a", "question": QUESTION, "reference": "7"}
    client.post("/v1/grade", json={"items": [item, {**item, "id": "b"}]})
    client.post("/v1/solve", json={"question": QUESTION, "stream": True})
    messages = [{"role": "user", "content": QUESTION}]
    for model, stream in (("lorid:intuitive_reasoner", False), ("lorid:deep_reasoner", True)):
        body = {"model": model, "messages": messages, "stream": stream}
        client.post("/v1/chat/completions", json=body)
    chat = "POST /v1/chat/completions"
    spans = collector.wait_for("POST /v1/grade", "POST /v1/solve", chat, chat)
    for name, number in (("POST /v1/grade", 2), ("POST /v1/solve", 1), (chat, 2)):
        parents = {span.span_id for span in spans if span.name == name}
        children = [span for span in spans if span.parent_span_id in parents]
        assert [span.name for span in children] == ["question"] * number
    sent = b"".join(collector.bodies)
    assert b"solver" in sent
    assert b"apples" not in sent
    assert b"So it is" not in sent


def test_a_failure_is_marked_without_its_message(endpoint, collector):
    def fail(_):
        raise EngineError("secret words")

    engine = ScriptedEngine(script(intuitive=fail, deep=texts("7")))
    client = endpoint(engine, serving={"otlp_endpoint": collector.url})
    client.post("/v1/solve", json={"question": QUESTION})
    spans = {one.name: one for one in collector.wait_for("POST /v1/solve", "question")}
    for name, kind in (("POST /v1/solve", "internal_error"), ("question", "EngineError")):
        assert spans[name].status.code == Status.STATUS_CODE_ERROR
        assert facts(spans[name])["error.type"] == kind
    assert b"secret" not in b"".join(collector.bodies)


def test_a_collector_that_is_away_costs_no_answer(endpoint, monkeypatch):
    # At exit the exporter still tries for as long.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    gone = "http://127.0.0.1:9/v1/traces"
    client = endpoint(engine, serving={"otlp_endpoint": gone})
    for _ in range(3):
        assert client.post("/v1/solve", json={"question": QUESTION}).json()["answer"] == "7"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:4318", "file:///tmp/x", "http://", "http://u:p@host/v1/traces", "http://a:b"]
)
def test_what_is_no_collector_is_refused(url):
    with pytest.raises(ValidationError, match="otlp_endpoint"):
        ServingConfig(otlp_endpoint=url)

"""Whatever is sent, the endpoint answers with what its schema says, and never with a 5xx.

By hand, at full size: LORID_FUZZ_REQUESTS=10000 pytest tests/serve_local/test_fuzz.py
"""

import json
import os

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks
from scripting import script, texts

from lorid.engines.scripted import ScriptedEngine

NUM_REQUESTS = int(os.environ.get("LORID_FUZZ_REQUESTS", "300"))
# Three routes take bodies, from the schema and with odd fields, and garbage: seven kinds.
NUM_EACH = max(10, NUM_REQUESTS // 7)
ROUTES = ("/v1/solve", "/v1/grade", "/v1/chat/completions")
SPECIAL = (
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "[/INST]",
    "</s>",
    "\x00",
    "\ud800",
    "\u2028",
)
FUZZED = settings(
    max_examples=NUM_EACH,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
load_all_checks()


@pytest.fixture
def schema(web):
    """The published schema, around a scripted engine."""
    return schemathesis.openapi.from_asgi("/openapi.json", app_of(web))


def app_of(web):
    engine = ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("7", None)))
    return web(engine, serving={"max_body_bytes": 100_000, "request_timeout_s": 20})


@pytest.fixture
def client(web):
    with TestClient(app_of(web), raise_server_exceptions=False) as one:
        yield one


def expect_clean(status: int, body: bytes, *, asked: str) -> None:
    """No 5xx but the deadline that the request itself has set; errors have their one shape."""
    if status < 400:
        return
    detail = json.loads(body)["error"]
    assert detail.keys() == {"type", "message", "request_id"}
    is_own_deadline = status == 503 and detail["type"] == "deadline_exceeded"
    assert status < 500 or (is_own_deadline and "timeout_s" in asked), (status, body, asked)
    assert "Traceback" not in detail["message"]


def test_requests_made_from_the_schema(schema):
    conforms = [
        CHECKS.get_one(f"{part}_conformance")
        for part in ("status_code", "content_type", "response_schema")
    ]

    def fuzz(operation):
        @FUZZED
        @given(operation.as_strategy())
        def ask(case):
            response = case.call()
            expect_clean(response.status_code, response.content, asked=repr(case.body))
            case.validate_response(response, checks=conforms)

        ask()

    operations = [one.ok() for one in schema.get_all_operations()]
    assert len(operations) == 8
    for operation in operations:
        fuzz(operation)


TEXTS = st.one_of(st.text(max_size=60), st.sampled_from(SPECIAL), st.just("9" * 5000))
ODD = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.just(10**400),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip
FIELDS = {
    "/v1/solve": ("question", "max_rounds", "rule", "seed", "stream", "timeout_s"),
    "/v1/grade": ("items", "max_rounds", "rule", "seed", "include_transcripts", "include_feedback"),
    "/v1/chat/completions": ("model", "messages", "seed", "stream", "max_tokens", "stream_options"),
}
GOOD = {
    "/v1/solve": {"question": "2 + 3 = ?"},
    "/v1/grade": {"items": [{"id": "1", "question": "2 + 3 = ?", "reference": "5"}]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "2 + 3 = ?"}]},
}


@pytest.mark.parametrize("route", ROUTES)
def test_good_bodies_with_odd_fields(client, route):
    names = st.sampled_from((*FIELDS[route], "odd"))

    @FUZZED
    @given(st.dictionaries(names, ODD, max_size=3), st.booleans())
    def fuzz(changes, is_ndjson):
        body = json.dumps(GOOD[route] | changes)
        headers = {"Content-Type": "application/json"}
        headers |= {"Accept": "application/x-ndjson"} if is_ndjson else {}
        response = client.post(route, content=body, headers=headers)
        expect_clean(response.status_code, response.content, asked=body)

    fuzz()


HEADERS = st.dictionaries(
    st.sampled_from(
        ["Content-Type", "Content-Encoding", "Accept", "X-Request-Id", "Authorization", "Origin"]
    ),
    st.one_of(
        st.sampled_from(
            ["application/json", "text/plain", "multipart/form-data", "gzip", "*/*", "\xff"]
        ),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80),
    ),
    max_size=4,
)
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"[" * 50_000,
            b'{"question":' * 5000,
            b'{"question": 1e999999}',
            b'{"question": "x", "seed": ' + b"9" * 5000 + b"}",
            b'{"question": NaN, "timeout_s": Infinity}',
            '{"question": "é"}'.encode("utf-16"),
            '{"question": "é"}'.encode("latin-1"),
            b"\xef\xbb\xbf" + b'{"question": "x"}',
            b" " * 100_001,
        ]
    ),
)


def test_garbage(client):
    @FUZZED
    @given(st.sampled_from(ROUTES), GARBAGE, HEADERS)
    def fuzz(route, body, headers):
        encoded = {key: value.encode("latin-1") for key, value in headers.items()}
        response = client.post(route, content=body, headers=encoded)
        expect_clean(response.status_code, response.content, asked=repr(body))

    fuzz()
    assert client.post("/v1/solve", json=GOOD["/v1/solve"]).status_code == 200

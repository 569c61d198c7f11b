"""docs/http-api.md from the endpoint's own schema.

python -m lorid.distributed.http_docs > docs/http-api.md

A test compares the file with what this writes: it cannot go stale. The prose is here, what the
schema knows comes from the schema.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lorid.distributed.web import schema

HEAD = """\
# HTTP API

<!-- written by `python -m lorid.distributed.http_docs > docs/http-api.md`; do not edit -->

JSON over HTTP; the schema is at `GET /openapi.json`. There is no interactive page: those load
scripts from other hosts. `lorid.client.Client`, `lorid solve`, `lorid grade` and OpenAI's own
clients (`base_url=".../v1"`) speak it.

**Token.** `Authorization: Bearer TOKEN`, unless the endpoint listens on loopback without tokens
([security.md](security.md)). `/healthz`, `/readyz`, `/openapi.json` and `/` are open.

**Request id.** `X-Request-Id` of 1 to 64 letters, digits, dots, dashes, underscores is kept, any
other replaced; every answer has it, and so has every line of the audit log.

**Deadline.** `timeout_s` in a body, from the arrival of the request, at most
`serving.request_timeout_s` (600) and `serving.batch_timeout_s` (3600) for `/v1/grade`. At the
deadline generation is cancelled in the engine and the answer is **503** with type
`deadline_exceeded`; a batch answers what is done, and the other items have that as their
`error_type`. A stream that has begun ends with an `error` event. A client that closes its
connection cancels its work in the same way.

**Too much.** `serving.max_queued_questions` may wait beyond those at work, and
`serving.max_batches` batches run at once. The next request is refused before its body is read:
**429** with `Retry-After`. An endpoint that is going away answers **503** `draining`, with
`Retry-After` too. Batches and single questions share the engine: while a single question is
there, batches keep to `serving.batch_share` of it ([serving.md](serving.md)).

**A lost engine.** A question whose replica or engine dies is asked again on another one until its
deadline. A text depends on its seed alone, so the answer is the same. Only tokens that were
streamed already cannot be taken back: such a stream ends with an `error` event.

**Seeds.** `seed` (or the run's own) and the question decide what is sampled, whatever else is
asked at the same time; [serving.md](serving.md) says exactly how far that goes.

**Feedback.** With `include_feedback` each result of `/v1/grade` has `feedback`: the first line of
the submission whose arithmetic does not hold, and rules that help without giving the answer away
([tutoring.md](tutoring.md)). It never changes a verdict. A submission may be a worked solution of
several lines: it is judged by the answer that it comes to.

**Errors** have one shape, and show nothing of the inside: the log has the rest, under the request
id.

```json
{"error": {"type": "invalid_request", "message": "question: Field required", "request_id": "1"}}
```

| status | type | when |
|---|---|---|
"""
ERROR_TYPES = (
    (400, "invalid_request", "the body is no JSON that can be read"),
    (401, "unauthorized", "no token, or one that the endpoint does not know"),
    (404, "not_found", "no such route or model"),
    (405, "not_found", "the route has no such method"),
    (413, "too_large", "more than `serving.max_body_bytes`, counted while it is read"),
    (422, "invalid_request", "a field does not fit; or a question too long for the engine"),
    (429, "too_many_requests", "as many are at work or waiting as may be; see `Retry-After`"),
    (500, "internal_error", "the endpoint failed; its log says why"),
    (503, "deadline_exceeded", "not done in time"),
    (503, "draining", "the endpoint is going away"),
    (503, "unavailable", "no engine, and it did not come back in time"),
    (503, "not_ready, cannot_start, idle_adapters", "`/readyz` alone"),
)
STREAMS = """\

## Streams

`POST /v1/solve` with `"stream": true` sends server-sent events: `attempt` for each text as it
ends (`round`, `role`, `text`, `answer`), `round` for each round as it is judged (`round`, `body`:
as in the answer), and last `answer` (the whole answer) or `error`. With waves, attempts of later
rounds may come that are not needed in the end.

`POST /v1/chat/completions` with `"stream": true` sends OpenAI's chunks and `data: [DONE]`. The
models `lorid:ROLE` and `lorid:base` send tokens as they are written. `lorid` answers by mutual
feedback: what it says is known when the rounds agree, and is then sent in chunks of a word; watch
`/v1/solve` for the rounds. `system_fingerprint` names the triple, in the last chunks of a stream.

`POST /v1/grade` with `Accept: application/x-ndjson` sends a line for each item as it finishes, in
any order, and last a line with the `summary`. A stream without that line was cut off: send again
what is missing (`lorid grade` and `lorid.batches.grade_all` do).
"""


def markdown() -> str:
    """The whole file."""
    document = schema()
    rows = (f"| {status} | `{kind}` | {when} |\n" for status, kind, when in ERROR_TYPES)
    parts = [HEAD, *rows, STREAMS]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation)
    parts += _models(document["components"]["schemas"])
    return "".join(parts).rstrip() + "\n"


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n## {title}\n\n{operation['summary']}.\n"
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if content:
        yield f"\nBody: {_reference(content['schema'])}.\n"
    for example in content.get("examples", {}).values():
        yield f"\n```json\n{_pretty(example['value'])}\n```\n"
    statuses = []
    for status, response in operation["responses"].items():
        if status != "200":
            statuses.append(status)
            continue
        yield f"\n**200**: {response['description']}.\n"
        for kind, one in response.get("content", {}).items():
            yield _example(kind, one.get("example"))
    if statuses:
        yield f"\nErrors: {', '.join(statuses)}.\n"


def _example(kind: str, example: object) -> str:
    if example is None:
        return ""
    if isinstance(example, str):
        return f"\n`{kind}`\n\n```\n{example.rstrip()}\n```\n"
    return f"\n```json\n{_pretty(example)}\n```\n"


def _models(models: Mapping[str, Any]) -> Iterator[str]:
    yield "\n## Bodies\n"
    for name, model in models.items():
        if "properties" not in model:
            continue
        about = " ".join(str(model.get("description", "")).split())
        yield f"\n### {name}\n\n{about}\n\n| field | type | |\n|---|---|---|\n"
        required = model.get("required", [])
        for field, one in model["properties"].items():
            need = (
                "required" if field in required else f"default `{json.dumps(one.get('default'))}`"
            )
            note = f"; {one['description']}" if "description" in one else ""
            yield f"| `{field}` | {_type(one)} | {need}{note} |\n"


def _type(one: Mapping[str, Any]) -> str:
    if "$ref" in one:
        return _reference(one)
    if "anyOf" in one:
        return " or ".join(_type(each) for each in one["anyOf"])
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    name = str(one.get("type", "any"))
    if name == "array":
        name = f"list of {_type(one.get('items', {}))}"
    limits = {
        "minimum": "from {}", "exclusiveMinimum": "above {}", "maximum": "to {}",
        "exclusiveMaximum": "below {}", "minLength": "from {} characters",
        "maxLength": "to {} characters", "minItems": "from {}", "maxItems": "to {}",
    }  # fmt: skip
    said = [text.format(f"{one[key]:,}") for key, text in limits.items() if key in one]
    return f"{name} ({', '.join(said)})" if said else name


def _reference(one: Mapping[str, Any]) -> str:
    name = str(one.get("$ref", "object")).rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _pretty(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    short = json.dumps(value, ensure_ascii=False)
    return short if len(short) <= 100 else text


def main() -> None:
    """Print the file."""
    print(markdown(), end="")


if __name__ == "__main__":
    main()

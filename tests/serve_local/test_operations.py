"""What operators see: metrics, their dashboard, the schema and its documentation."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from scripting import script, texts

from lorid import api
from lorid.distributed.http_docs import markdown
from lorid.distributed.web import schema
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import EngineDied, EngineError

ROOT = Path(__file__).parents[2]
QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"


def metrics_of(client) -> dict[str, float]:
    """Every sample, by name and labels as Prometheus writes them."""
    samples = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def test_what_was_answered_is_counted(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("8", "7"), base=["I am"]))
    client = endpoint(engine)
    item = {"id": "a", "question": QUESTION, "reference": "7"}
    client.post("/v1/solve", json={"question": QUESTION})
    items = [item, {"id": "b"}, {**item, "submission": "7"}]
    client.post("/v1/grade", json={"items": items})
    messages = [{"role": "user", "content": QUESTION}]
    client.post("/v1/chat/completions", json={"model": "lorid:base", "messages": messages})
    client.post("/v1/solve", json={})
    client.get("/odd/<path>")
    seen = metrics_of(client)
    assert seen["lorid_questions_total{outcome=agreed}"] == 2
    assert (seen["lorid_rounds_sum"], seen["lorid_rounds_count"]) == (4, 2)
    assert seen["lorid_generations_total{use=used}"] == 13 == len(engine.history)
    assert seen["lorid_generations_total{use=wasted}"] == 0
    assert seen["lorid_tokens_total{kind=prompt}"] == 13
    assert seen["lorid_tokens_total{kind=cached_prompt}"] == 0
    assert seen["lorid_items_total{verdict=correct}"] == 2
    assert seen["lorid_items_total{verdict=error}"] == 1
    assert seen["lorid_errors_total{type=bad_item}"] == 1
    assert seen["lorid_errors_total{type=invalid_request}"] == 1
    assert seen["lorid_requests_total{route=/v1/solve,status=422}"] == 1
    # A stranger's path must not become a label of its own.
    assert seen["lorid_requests_total{route=other,status=404}"] == 1
    for stage, number in (("queue", 3), ("solve", 3), ("compare", 2), ("request", 4)):
        assert seen[f"lorid_stage_seconds_count{{stage={stage}}}"] == number
    assert seen["lorid_requests_inside{kind=question}"] == seen["lorid_items_inside"] == 0


def test_engines_that_die_and_fail_are_counted(endpoint):
    turns = iter([EngineDied("gone"), EngineError("failed")])

    def write(request):
        raise next(turns)

    client = endpoint(ScriptedEngine(script(intuitive=write, deep=texts("7"))))
    assert client.post("/v1/solve", json={"question": QUESTION}).status_code == 500
    seen = metrics_of(client)
    assert seen["lorid_lost_calls_total"] == 1
    assert seen["lorid_errors_total{type=internal_error}"] == 1


def test_the_dashboard_draws_metrics_that_exist(endpoint):
    client = endpoint(ScriptedEngine(script(intuitive=texts("7"), deep=texts("7"))))
    item = {"id": "a", "question": QUESTION, "reference": "7"}
    client.post("/v1/grade", json={"items": [item, {"id": "b"}]})
    known = {name.partition("{")[0] for name in metrics_of(client)}
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "lorid.json").read_text())
    drawn = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            drawn |= set(re.findall(r"lorid_\w+", target["expr"]))
    assert drawn <= known
    # And each metric is drawn somewhere.
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in known}
    missing = {one for one in families if not any(name.startswith(one) for name in drawn)}
    assert not missing


def test_the_documentation_is_what_the_schema_says():
    written = (ROOT / "docs" / "http-api.md").read_text()
    assert written == markdown(), "python -m lorid.distributed.http_docs > docs/http-api.md"


def operations() -> list[tuple[str, str, dict]]:
    return [
        (path, method, one)
        for path, methods in schema()["paths"].items()
        for method, one in methods.items()
    ]


@pytest.mark.parametrize(("path", "method", "operation"), operations())
def test_every_route_has_examples_and_errors(path, method, operation):
    contents = operation["responses"]["200"]["content"].values()
    assert all("example" in content for content in contents)
    if method == "post":
        assert operation["requestBody"]["content"]["application/json"]["examples"]
        assert operation["responses"].keys() >= {"401", "413", "422", "429", "503"}
    for status, response in operation["responses"].items():
        if status != "200":
            example = response["content"]["application/json"]["example"]
            assert api.ErrorBody.model_validate(example).error.message


def test_examples_are_bodies_that_the_endpoint_takes_and_gives(endpoint):
    client = endpoint(ScriptedEngine(script(intuitive=texts("7"), deep=texts("7"))))
    answers = {"/v1/solve": api.SolveResponse, "/v1/grade": api.GradeResponse}
    for path, method, operation in operations():
        if method != "post":
            continue
        content = operation["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            response = client.post(path, json=example["value"])
            assert response.status_code == 200
            if path in answers:
                TypeAdapter(answers[path]).validate_json(response.content)
        example = operation["responses"]["200"]["content"]["application/json"]["example"]
        assert example.keys() <= client.post(path, json=_first(content)).json().keys()


def _first(content: dict) -> dict:
    return next(iter(content["examples"].values()))["value"]


def test_the_published_schema_is_the_served_one(endpoint):
    client = endpoint(ScriptedEngine({}))
    assert client.get("/openapi.json").json() == json.loads(json.dumps(schema()))
    # These would load scripts from other hosts.
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404

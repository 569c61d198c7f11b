"""Who may ask, how much at a time, and what the log keeps of it."""

import json

import pytest
from fastapi.testclient import TestClient
from scripting import script, texts
from typer.testing import CliRunner

from lorid.cli.app import app
from lorid.distributed.access import Tokens, new_token, tokens_for
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import ConfigError

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
BODY = {"question": QUESTION}


def engine() -> ScriptedEngine:
    return ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def tokens_file(tmp_path):
    return tmp_path / "tokens"


def write(path, *names) -> list[str]:
    made = [new_token(name) for name in names]
    path.write_text("# who may ask\n\n" + "\n".join(line for _, line in made) + "\n")
    return [token for token, _ in made]


def test_only_a_known_token_gets_an_answer(endpoint, tokens_file):
    alice, bob = write(tokens_file, "alice", "bob")
    client = endpoint(engine(), serving={"tokens_file": str(tokens_file)})
    for token in (alice, bob):
        assert client.post("/v1/solve", json=BODY, headers=bearer(token)).status_code == 200
    wrong = [{}, bearer("lorid_x"), bearer(alice + "x"), bearer(""), {"Authorization": alice}]
    wrong += [{"Authorization": f"Basic {alice}"}, {"Authorization": b"Bearer \xff\xfe"}]
    for route in ("/v1/solve", "/v1/grade", "/v1/chat/completions", "/nowhere"):
        for headers in wrong:
            response = client.post(route, json=BODY, headers=headers)
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["type"] == "unauthorized"
    for route in ("/metrics", "/v1/models"):
        assert client.get(route).status_code == 401
        assert client.get(route, headers=bearer(bob)).status_code == 200


def test_probes_are_open_and_say_nothing_to_strangers(endpoint, tokens_file):
    (alice,) = write(tokens_file, "alice")
    client = endpoint(engine(), serving={"tokens_file": str(tokens_file)})
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert "triple" in client.get("/readyz", headers=bearer(alice)).json()


def test_tokens_come_and_go_without_a_restart(endpoint, tokens_file):
    (alice,) = write(tokens_file, "alice")
    client = endpoint(engine(), serving={"tokens_file": str(tokens_file)})

    def status(token):
        return client.get("/v1/models", headers=bearer(token)).status_code

    assert status(alice) == 200
    bob, carol = write(tokens_file, "bob", "carol")
    assert [status(token) for token in (alice, bob, carol)] == [401, 200, 200]
    # A file that is broken for a moment locks nobody out, and lets nobody in.
    tokens_file.write_text("half a li")
    assert [status(token) for token in (alice, bob)] == [401, 200]
    tokens_file.unlink()
    assert [status(token) for token in (alice, bob)] == [401, 200]
    tokens_file.write_text("# nobody\n")
    assert [status(token) for token in (alice, bob)] == [401, 401]


def test_the_file_and_the_memory_hold_hashes_only(tokens_file):
    (alice,) = write(tokens_file, "alice")
    tokens = Tokens(tokens_file)
    assert tokens.name_of(f"bearer {alice}") == "alice"
    secret = alice.removeprefix("lorid_")
    assert secret not in tokens_file.read_text()
    assert secret not in repr(vars(tokens))


@pytest.mark.parametrize("text", ["", "# nothing\n", "alice lorid_secret-token\n", "alice\n"])
def test_a_tokens_file_that_cannot_work_is_refused_without_showing_it(tokens_file, text):
    tokens_file.write_text(text)
    with pytest.raises(ConfigError, match="lorid token new") as raised:
        Tokens(tokens_file)
    assert "secret" not in str(raised.value)


def test_beyond_loopback_tokens_are_required(web, tokens_file):
    for host in ("0.0.0.0", "::", "10.1.2.3", "lorid.example", None):
        with pytest.raises(ConfigError, match=r"serving\.tokens_file"):
            web(engine(), host=host)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert tokens_for(host, None) is None
    write(tokens_file, "alice")
    assert web(engine(), host="0.0.0.0", serving={"tokens_file": str(tokens_file)})


def test_the_command_prints_the_token_once_and_its_line(tokens_file):
    result = CliRunner().invoke(app, ["token", "new", "alice"])
    tokens_file.write_text(result.stdout)
    token = result.stderr.split()[-1]
    assert token not in result.stdout
    assert Tokens(tokens_file).name_of(f"Bearer {token}") == "alice"
    refused = CliRunner().invoke(app, ["token", "new", "a b"])
    assert isinstance(refused.exception, ConfigError)


def test_every_answer_has_a_request_id_and_the_security_headers(endpoint):
    client = endpoint(engine())
    given = client.get("/healthz", headers={"X-Request-Id": "mine-1.2_3"})
    assert given.headers["x-request-id"] == "mine-1.2_3"
    for odd in ("", "a b", "x" * 65, "<script>", "a\tb"):
        made = client.get("/v2", headers={"X-Request-Id": odd})
        assert made.headers["x-request-id"] != odd
        assert made.json()["error"]["request_id"] == made.headers["x-request-id"]
    for response in (given, made, client.post("/v1/solve", json=BODY)):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cache-control"] == "no-store"


def test_a_body_is_bounded_also_when_nobody_says_how_long_it_is(endpoint):
    client = endpoint(engine(), serving={"max_body_bytes": 2000})
    assert client.post("/v1/solve", json=BODY).status_code == 200
    sent = []

    def endless():
        while len(sent) < 1000:
            sent.append(1)
            yield b" " * 500

    headers = {"content-type": "application/json"}
    for content in (endless(), b" " * 2001):
        response = client.post("/v1/solve", content=content, headers=headers)
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "too_large"
    small = iter([json.dumps(BODY).encode()])
    assert client.post("/v1/solve", content=small, headers=headers).status_code == 200


def test_items_and_questions_are_bounded_by_the_config(endpoint):
    client = endpoint(engine(), serving={"max_items": 2, "max_question_chars": 60})
    item = {"id": "a", "question": QUESTION, "reference": "7"}
    assert client.post("/v1/grade", json={"items": [item] * 2}).status_code == 200
    assert client.post("/v1/grade", json={"items": [item] * 3}).status_code == 422
    long = QUESTION + " " * 30
    messages = [{"role": "user", "content": long}]
    for route, body in (
        ("solve", {"question": long}),
        ("chat/completions", {"messages": messages}),
    ):
        response = client.post(f"/v1/{route}", json=body)
        assert response.status_code == 422
        assert "60 characters" in response.json()["error"]["message"]
    graded = client.post("/v1/grade", json={"items": [item | {"question": long}, item]}).json()
    assert [one["error_type"] for one in graded["results"]] == ["bad_item", None]


def test_other_sites_may_not_call_unless_they_are_named(endpoint):
    origin = {"Origin": "https://lorid.example"}
    preflight = {"Access-Control-Request-Method": "POST", **origin}
    closed = endpoint(engine())
    assert "access-control-allow-origin" not in closed.get("/healthz", headers=origin).headers
    assert closed.options("/v1/solve", headers=preflight).status_code == 405
    opened = endpoint(engine(), serving={"cors_origins": ("https://lorid.example",)})
    for response in (
        opened.options("/v1/solve", headers=preflight),
        opened.get("/healthz", headers=origin),
    ):
        assert response.headers["access-control-allow-origin"] == "https://lorid.example"
    other = opened.get("/healthz", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in other.headers


def test_the_audit_log_says_who_and_what_but_not_the_question(endpoint, tokens_file, audited):
    (alice,) = write(tokens_file, "alice")
    client = endpoint(engine(), serving={"tokens_file": str(tokens_file)})
    client.post("/v1/solve", json=BODY, headers=bearer(alice) | {"X-Request-Id": "one"})
    items = [{"id": "a", "question": QUESTION, "reference": "7"}, {"id": "b"}]
    client.post("/v1/grade", json={"items": items}, headers=bearer(alice))
    client.post("/v1/solve", json=BODY)
    solved, graded, stranger = audited()
    assert (solved["request_id"], solved["token"], solved["status"]) == ("one", "alice", 200)
    assert (solved["route"], solved["outcome"], solved["num_rounds"]) == ("/v1/solve", "agreed", 1)
    assert solved["duration_ms"] > 0
    assert (graded["num_items"], graded["num_errors"]) == (2, 1)
    assert (stranger["token"], stranger["status"], stranger["error"]) == (None, 401, "unauthorized")
    assert "apples" not in json.dumps(audited())
    assert alice not in json.dumps(audited())


def test_the_audit_log_has_questions_when_asked_to(endpoint, audited):
    client = endpoint(engine(), serving={"log_questions": True})
    client.post("/v1/solve", json=BODY)
    client.post("/v1/grade", json={"items": [{"id": "a", "question": QUESTION, "reference": "7"}]})
    solved, graded = audited()
    assert solved["question"] == QUESTION
    assert graded["questions"] == [QUESTION]


def test_what_fails_is_in_the_log_and_not_in_the_answer(endpoint, logged):
    def write(request):
        raise RuntimeError("secret path /root/key")

    client = endpoint(ScriptedEngine(script(intuitive=write, deep=write)))
    response = client.post("/v1/solve", json=BODY)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert any("secret path" in one.getMessage() for one in logged)


def test_a_client_of_python_sends_its_token(web, tokens_file):
    (alice,) = write(tokens_file, "alice")
    client = TestClient(web(engine(), serving={"tokens_file": str(tokens_file)}))
    client.headers["Authorization"] = f"Bearer {alice}"
    assert client.post("/v1/solve", json=BODY).json()["answer"] == "7"

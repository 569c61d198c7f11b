"""What the endpoint answers, with a scripted engine behind the real graph."""

import json
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema
from scripting import TRIPLE, NoStore, script, small_config, texts

from lorid.api import SolveRequest
from lorid.distributed.deployments import app_of_run
from lorid.distributed.student import StudentEngine
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import (
    AdapterMismatch,
    ArtifactIncomplete,
    ConfigError,
    EngineError,
    PromptTooLong,
)
from lorid.method.attempts import parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.replay import replay
from lorid.method.roles import Role
from lorid.method.stopping import Outcome, Policy
from serve.app import build

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"


def solve(client, **body):
    response = client.post("/v1/solve", json={"question": QUESTION, **body})
    assert response.status_code == 200, response.text
    return response.json()


def grade(client, *items, **body):
    response = client.post("/v1/grade", json={"items": list(items), **body})
    assert response.status_code == 200, response.text
    return response.json()


def item(name="a", **fields):
    return {"id": name, "question": QUESTION, **fields}


def error_of(response, *, status):
    assert response.status_code == status, response.text
    detail = response.json()["error"]
    assert detail.keys() == {"type", "message", "request_id"}
    return detail["message"]


def test_agreement_in_the_first_round_stops_there(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7", "8"), deep=texts("7.0", "9")))
    answer = solve(endpoint(engine))
    assert (answer["answer"], answer["outcome"], answer["num_rounds"]) == ("7", "agreed", 1)
    (only,) = answer["rounds"]
    assert only["agreed"]
    assert only["knowledge"] == "To find a total, add."
    assert only["deep"]["answer"] == "7.0"
    assert answer["usage"]["num_generations"] == len(engine.history) == 3
    deep = next(one for one in engine.history if one.role is Role.DEEP_REASONER)
    assert deep.knowledge == "To find a total, add."


def test_agreement_across_rounds_stops_in_the_second(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("8", "7")))
    answer = solve(endpoint(engine))
    assert (answer["answer"], answer["num_rounds"]) == ("7", 2)
    assert [one["agreed"] for one in answer["rounds"]] == [False, True]
    assert answer["confidence"] == pytest.approx(2 / 4)


def test_without_agreement_the_plurality_answers(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("1", "1", "2"), deep=texts("3", "4", "5")))
    answer = solve(endpoint(engine))
    assert (answer["answer"], answer["outcome"], answer["num_rounds"]) == ("1", "exhausted", 3)


def test_without_any_answer_there_is_none(endpoint):
    engine = ScriptedEngine(script(intuitive=texts(None), deep=texts(None)))
    answer = solve(endpoint(engine), max_rounds=2)
    assert (answer["answer"], answer["outcome"], answer["num_rounds"]) == (None, "no_answer", 2)
    assert answer["confidence"] is None


def test_a_request_chooses_rule_and_seed(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("8")))
    client = endpoint(engine)
    answer = solve(client, rule="intuitive-only", seed=5)
    assert (answer["answer"], answer["rounds"][0]["deep"]) == ("7", None)
    solve(client, rule="intuitive-only", seed=5)
    solve(client, rule="intuitive-only", seed=6)
    first, again, other = (request.seed for request in engine.history)
    assert first == again != other


@pytest.mark.parametrize(
    ("rule", "answer", "num_rounds"),
    [("paper", "1", 2), ("same-round", "7", 3), ("majority", "7", 3), ("bayes", "7", 3)],
)
def test_every_rule_is_served_alike_with_and_without_waves(endpoint, rule, answer, num_rounds):
    def asked(**feedback):
        engine = ScriptedEngine(script(intuitive=texts("1", "7", "7"), deep=texts("2", "1", "7")))
        client = endpoint(engine, **feedback)
        return solve(client, rule=rule), len(engine.history)

    lazy, num_lazy = asked()
    waved, num_waved = asked(max_wave_rounds=3)
    assert (lazy["answer"], lazy["num_rounds"]) == (answer, num_rounds)
    same = ("answer", "outcome", "confidence", "num_rounds", "rounds")
    assert [lazy[key] for key in same] == [waved[key] for key in same]
    assert lazy["usage"]["num_generations"] == num_lazy == 3 * num_rounds
    assert lazy["usage"]["num_wasted"] == 0
    assert waved["usage"]["num_generations"] == num_waved
    assert waved["usage"]["num_wasted"] == num_waved - 3 * num_rounds


@pytest.mark.parametrize(("slots", "is_wasteful"), [(1, False), (64, True)])
async def test_a_replica_without_room_speculates_nothing(slots, is_wasteful):
    config = small_config(max_wave_rounds=3)
    serving = config.serving.model_copy(update={"max_concurrent_questions": slots})
    config = config.model_copy(update={"serving": serving})
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    student = StudentEngine(
        config.endpoint().model_dump_json(), lambda _: engine, NoStore(config), follows=False
    )
    transcript = (await student.solve(SolveRequest(question=QUESTION))).answer
    assert (transcript.answer, len(transcript.rounds)) == ("7", 1)
    assert (transcript.num_wasted > 0) == is_wasteful
    assert student.load() == 0


def test_grading_with_and_without_reference_and_submission(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    answer = grade(
        endpoint(engine),
        item("solved", reference="7"),
        item("wrong", reference="8"),
        item("compared", reference="1/2", submission="0.5"),
        item("checked", submission="7"),
    )
    verdicts = {result["id"]: result["verdict"] for result in answer["results"]}
    assert verdicts == {
        "solved": "correct",
        "wrong": "incorrect",
        "compared": "correct",
        "checked": "correct",
    }
    summary = answer["summary"]
    assert (summary["num_correct"], summary["num_incorrect"], summary["accuracy"]) == (3, 1, 0.75)


def test_comparing_two_answers_asks_no_model(endpoint):
    engine = ScriptedEngine({})
    answer = grade(endpoint(engine), item(reference="7", submission="8"))
    assert answer["results"][0]["verdict"] == "incorrect"
    assert engine.history == []


def test_a_submission_without_agreement_is_undecided(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("1"), deep=texts("2")))
    answer = grade(endpoint(engine), item(submission="1"))
    assert answer["results"][0]["verdict"] == "undecided"
    assert answer["summary"]["num_undecided"] == 1


def test_bad_items_are_errors_of_their_own(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    answer = grade(
        endpoint(engine),
        item("good", reference="7"),
        item("empty"),
        {"id": "no question", "reference": "7"},
        {"id": 3, "question": QUESTION, "reference": "7"},
    )
    good, *bad = answer["results"]
    assert good["verdict"] == "correct"
    assert good["error"] is None
    assert [one["verdict"] for one in bad] == [None, None, None]
    assert "reference" in bad[0]["error"]
    assert "question" in bad[1]["error"]
    assert bad[2]["id"] == "item 4"
    assert answer["summary"]["num_errors"] == 3
    assert answer["summary"]["accuracy"] == 1.0


def test_an_engine_that_fails_on_one_question_fails_that_item(endpoint):
    def write(request):
        if "apples" not in request.question:
            raise PromptTooLong("the prompt is too long")
        return "--> 7 END"

    client = endpoint(ScriptedEngine(script(intuitive=write, deep=write)))
    other = {"id": "b", "question": "What is it?", "reference": "7"}
    good, bad = grade(client, item(reference="7"), other)["results"]
    assert good["verdict"] == "correct"
    assert bad["error"] == "the prompt is too long"
    response = client.post("/v1/solve", json={"question": "What is it?"})
    # The question is at fault, not the endpoint.
    assert error_of(response, status=422) == "the prompt is too long"


def test_an_engine_that_fails_is_the_endpoints_fault(endpoint):
    def write(request):
        raise EngineError("generation failed")

    client = endpoint(ScriptedEngine(script(intuitive=write, deep=write)))
    response = client.post("/v1/solve", json={"question": QUESTION})
    assert error_of(response, status=500) == "generation failed; its log says why"


def test_an_engine_that_refuses_to_start_is_told_from_one_that_is_not_there_yet(endpoint):
    class Broken(ScriptedEngine):
        def __init__(self, error):
            super().__init__({})
            self.error = error

        async def probe(self, triple):
            raise self.error

    refusing = endpoint(Broken(AdapterMismatch("deep_reasoner: rank 4")))
    assert error_of(refusing.get("/readyz"), status=503) == "deep_reasoner: rank 4"
    assert refusing.get("/readyz").json()["error"]["type"] == "cannot_start"
    dying = endpoint(Broken(RuntimeError("an actor died")))
    assert dying.get("/readyz").json()["error"]["type"] == "not_ready"


def test_text_that_no_answer_can_carry_is_an_error_of_its_item(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    client = endpoint(engine)
    half = r"\ud800"
    body = (
        f'{{"items": [{{"id": "{half}", "question": "x", "reference": "1"}}, '
        f'{{"id": "b", "question": "x{half}", "reference": "1"}}, '
        f'{{"id": "c", "question": "x", "reference": "1", "{half}": 1}}, '
        f'{{"id": "d", "question": "{QUESTION}", "reference": "7"}}]}}'
    )
    response = client.post("/v1/grade", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    *bad, good = response.json()["results"]
    assert [one["verdict"] for one in bad] == [None, None, None]
    assert good["verdict"] == "correct"


def test_what_failed_inside_stays_inside(endpoint):
    def write(request):
        raise RuntimeError("secret path /root/key")

    client = endpoint(ScriptedEngine(script(intuitive=write, deep=write)))
    response = client.post("/v1/solve", json={"question": QUESTION})
    assert "secret" not in error_of(response, status=500)
    assert "secret" not in json.dumps(grade(client, item(reference="7")))


def test_transcripts_can_be_replayed(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7", "5"), deep=texts("8", "7")))
    answer = grade(endpoint(engine), item(reference="7"), include_transcripts=True)
    transcript = answer["results"][0]["transcript"]
    assert len(transcript["rounds"]) == 2
    attempts = parse_attempts_line(json.dumps(transcript["attempts"]))
    with AnswerChecker() as checker:
        (score,) = replay([attempts], policy=Policy(), checker=checker)
    assert (score.answer, score.num_rounds, score.correct) == ("7", 2, True)
    assert score.outcome is Outcome.AGREED


@pytest.mark.parametrize(
    ("route", "body", "named"),
    [
        ("/v1/solve", {}, "question"),
        ("/v1/solve", {"question": ""}, "question"),
        ("/v1/solve", {"question": "x" * 20_001}, "question"),
        ("/v1/solve", {"question": QUESTION, "max_rounds": 0}, "max_rounds"),
        ("/v1/solve", {"question": QUESTION, "rule": "paper-oracle"}, "label"),
        ("/v1/grade", {"items": [{}], "rule": "paper-oracle"}, "label"),
        ("/v1/solve", {"question": QUESTION, "rule": "best"}, "best"),
        ("/v1/solve", {"question": QUESTION, "adapter": "/etc"}, "adapter"),
        ("/v1/grade", {"items": []}, "items"),
        ("/v1/grade", {"items": [{}] * 10_001}, "items"),
        ("/v1/chat/completions", {"messages": []}, "messages"),
    ],
)
def test_a_bad_body_is_refused_with_the_field_named(endpoint, route, body, named):
    client = endpoint(ScriptedEngine({}))
    assert named in error_of(client.post(route, json=body), status=422)


def test_a_body_that_is_not_json_or_too_large_is_refused(endpoint):
    client = endpoint(ScriptedEngine({}))
    headers = {"content-type": "application/json"}
    error_of(client.post("/v1/solve", content="{", headers=headers), status=422)
    large = headers | {"content-length": str(2**40)}
    error_of(client.post("/v1/solve", content="{}", headers=large), status=413)
    error_of(client.get("/v2"), status=404)


def test_ready_only_when_every_adapter_answers_unlike_the_base(endpoint):
    ready = endpoint(ScriptedEngine({}))
    assert ready.get("/healthz").status_code == 200
    assert ready.get("/readyz").status_code == 200
    assert ready.get("/readyz").json()["triple"] == TRIPLE
    idle = endpoint(ScriptedEngine({}, idle=[TRIPLE]))
    assert idle.get("/healthz").status_code == 200
    response = idle.get("/readyz")
    assert response.json()["error"]["type"] == "idle_adapters"
    assert "deep_reasoner" in error_of(idle.get("/readyz"), status=503)


def test_chat_completions_answer_by_model(endpoint):
    engine = ScriptedEngine(
        script(intuitive=texts("7"), deep=texts("8", "7"), base=["I am the base"])
    )
    client = endpoint(engine)
    listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert set(listed) == {"lorid", "lorid:base", *(f"lorid:{role}" for role in Role)}

    def ask(model, **body):
        messages = [{"role": "system", "content": "Hi"}, {"role": "user", "content": QUESTION}]
        body = {"model": model, "messages": messages, **body}
        return client.post("/v1/chat/completions", json=body)

    def content(model):
        return ask(model).json()["choices"][0]["message"]["content"]

    assert content("lorid").endswith("The answer is 7.")
    assert content("lorid:base") == "I am the base"
    assert content("lorid:knowledge_generator") == "To find a total, add."
    content("lorid:deep_reasoner")
    assert engine.history[-1].knowledge == "To find a total, add."
    assert "lorid:poet" in error_of(ask("lorid:poet"), status=404)


def test_serve_deploy_config_is_valid_and_names_the_builder():
    schema = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    (application,) = schema.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert "#" in application.args["run"]


@pytest.mark.parametrize("run", ["demo", "#demo", "store#", "@production", "store@"])
def test_a_malformed_run_address_is_a_clear_error(run):
    with pytest.raises(ConfigError, match="STORE#NAME"):
        build({"run": run})


def test_every_answer_names_the_triple_that_gave_it(endpoint):
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    client = endpoint(engine)
    assert client.get("/v1/models").json()["data"][0]["triple"] is None
    assert solve(client)["triple"] == TRIPLE
    graded = grade(
        client,
        item("a", reference="7"),
        item("b", submission="7"),
        item("c", reference="7", submission="7"),
    )
    assert [result["triple"] for result in graded["results"]] == [TRIPLE, TRIPLE, None]
    assert graded["summary"]["triples"] == [TRIPLE]
    for model in ("lorid", "lorid:deep_reasoner", "lorid:base"):
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
        answer = client.post("/v1/chat/completions", json=body).json()
        assert answer["system_fingerprint"] == TRIPLE
    assert {model["triple"] for model in client.get("/v1/models").json()["data"]} == {TRIPLE}


def test_a_run_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ArtifactIncomplete, match="no triple named 'demo'"):
        app_of_run(f"{tmp_path}#demo")
    with pytest.raises(ConfigError, match="run is missing"):
        build({})

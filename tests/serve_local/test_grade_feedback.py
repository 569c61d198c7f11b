"""What a tutor says with a verdict: where a submission departs, and a hint without the answer."""

import asyncio
import json

import pytest
from scripting import TRIPLE, script, texts
from typer.testing import CliRunner

from lorid.cli.app import app
from lorid.client import Client
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import EngineError
from lorid.method.roles import Role

QUESTION = "Tom has 12 apples. He gives 5 away and buys 4 more. How many are there?"
RIGHT = "He keeps 12 - 5 = 7 apples.\nThen 7 + 4 = 11.\n--> 11 END"
WRONG = "He keeps 12 - 5 = 8 apples.\nThen 8 + 4 = 12.\n--> 12 END"
RULES = (
    "- What is given away is subtracted from what was there.\n"
    "- The result is 11 apples.\n"
    "- It is eleven in total.\n"
    "- Add 7 and 4 for the last step.\n"
    "- What is bought is added to what is left."
)
HARMLESS = [
    "What is given away is subtracted from what was there.",
    "What is bought is added to what is left.",
]


def engine(**roles):
    written = script(intuitive=texts("11"), deep=texts("11"))
    return ScriptedEngine(written | {Role.KNOWLEDGE_GENERATOR: [RULES]} | roles)


def grade(client, *items, **body):
    items = [{"question": QUESTION, **item} for item in items]
    response = client.post("/v1/grade", json={"items": items, **body})
    assert response.status_code == 200, response.text
    return response.json()["results"]


ITEMS = [
    {"id": "wrong", "reference": "11", "submission": WRONG},
    {"id": "right", "reference": "11", "submission": RIGHT},
    {"id": "checked", "submission": WRONG},
    {"id": "answer", "reference": "11", "submission": "11"},
    {"id": "solved", "reference": "12"},
    {"id": "bad"},
]


def test_feedback_names_the_line_and_changes_no_verdict(endpoint):
    client = endpoint(engine())
    plain = grade(client, *ITEMS)
    told = grade(client, *ITEMS, include_feedback=True)
    assert [one.pop("feedback") for one in plain] == [None] * len(ITEMS)
    notes = {one["id"]: one.pop("feedback") for one in told}
    assert plain == told
    assert [one["verdict"] for one in plain[:2]] == ["incorrect", "correct"]
    assert notes["bad"] is None
    for name in ("wrong", "checked"):
        assert notes[name]["departure"] == {
            "line": 1,
            "text": "He keeps 12 - 5 = 8 apples.",
            "claim": "12 - 5 = 8",
            "expected": "7",
        }
    assert [notes[name]["departure"] for name in ("right", "answer", "solved")] == [None] * 3
    assert [notes[name]["hint"] for name in ("wrong", "checked", "right")] == [HARMLESS] * 3


def test_without_agreement_no_side_s_answer_is_told(endpoint):
    made = script(intuitive=texts("11"), deep=texts("12"))
    made |= {Role.KNOWLEDGE_GENERATOR: [RULES + "\nA dozen of them are left."]}
    (result,) = grade(endpoint(ScriptedEngine(made)), ITEMS[2], include_feedback=True)
    assert result["verdict"] == "undecided"
    assert result["feedback"]["hint"] == HARMLESS


def test_comparing_draws_one_text_and_solving_none_beyond_its_rounds(endpoint):
    made = engine()
    client = endpoint(made)
    grade(client, ITEMS[0], include_feedback=True)
    assert [one.role for one in made.history] == [Role.KNOWLEDGE_GENERATOR]
    grade(client, ITEMS[2], include_feedback=True)
    assert len(made.history) == 1 + 3


def test_a_rule_that_asks_for_no_knowledge_has_a_text_drawn(endpoint):
    (result,) = grade(endpoint(engine()), ITEMS[2], include_feedback=True, rule="intuitive-only")
    assert result["feedback"]["hint"] == HARMLESS


def test_without_an_engine_the_verdict_stands_and_there_is_no_hint(endpoint):
    def fail(_):
        raise EngineError("no memory")

    client = endpoint(engine(**{Role.KNOWLEDGE_GENERATOR: fail}))
    (result,) = grade(client, ITEMS[0], include_feedback=True)
    assert (result["verdict"], result["error"]) == ("incorrect", None)
    assert result["feedback"]["hint"] == []
    assert result["feedback"]["departure"]["line"] == 1


def test_a_hint_that_takes_too_long_costs_no_verdict(endpoint):
    async def dawdle(_):
        await asyncio.sleep(60)
        return RULES

    client = endpoint(engine(**{Role.KNOWLEDGE_GENERATOR: dawdle}))
    (result,) = grade(client, ITEMS[0], include_feedback=True, timeout_s=0.8)
    assert (result["verdict"], result["error"]) == ("incorrect", None)
    assert result["feedback"]["hint"] == []


@pytest.mark.parametrize(
    ("submission", "reference", "verdict"),
    [
        (RIGHT, "11", "correct"),
        ("48/2 = 24\n48 + 24 = 72\n#### 72", "72", "correct"),
        (RIGHT, "12", "incorrect"),
        # Several lines, and one answer: compared as a whole.
        ("\\begin{pmatrix} 1 & 2 \\\\\n3 & 4 \\end{pmatrix}",
         "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "correct"),
    ],
)  # fmt: skip
def test_worked_solutions_are_judged_by_their_answer(endpoint, submission, reference, verdict):
    item = {"id": "a", "submission": submission, "reference": reference}
    (result,) = grade(endpoint(ScriptedEngine({})), item)
    assert result["verdict"] == verdict


def test_the_command_line_asks_for_feedback(served, tmp_path):
    items, output = tmp_path / "items.jsonl", tmp_path / "graded.jsonl"
    items.write_text(json.dumps({"question": QUESTION, **ITEMS[0]}) + "\n")
    command = ["grade", str(items), "-o", str(output), "--url", served(engine()), "--feedback"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    row = json.loads(output.read_text())
    assert (row["verdict"], row["feedback"]["departure"]["line"]) == ("incorrect", 1)
    assert row["feedback"]["hint"] == HARMLESS


def test_the_client_asks_for_feedback_and_streams_it(served):
    with Client(served(engine())) as client:
        items = [{"question": QUESTION, **ITEMS[0]}, {"question": QUESTION, **ITEMS[2]}]
        whole = client.grade(items, include_feedback=True)["results"]
        streamed = {row["id"]: row for row in client.grade_stream(items, include_feedback=True)}
    assert [row["feedback"]["departure"]["expected"] for row in whole] == ["7", "7"]
    assert streamed == {row["id"]: row for row in whole}
    assert streamed["checked"]["triple"] == TRIPLE

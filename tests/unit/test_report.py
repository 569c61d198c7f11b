"""The report says what the attempts say, and what a model wrote stays text."""

import json
import re

import pytest
from rich.console import Console

from lorid.method.equivalence import AnswerChecker
from lorid.method.roles import Role
from lorid.report.data import LossPoint, ReportData, summarize_methods
from lorid.report.html import render_html
from lorid.report.terminal import print_summary

ATTACK = "<script>alert(1)</script>[bold]"


def attempts(name, intuitive, deep, *, gold="7", family="known"):
    def texts(answers):
        return [f"It is {ATTACK}.\n--> {answer} END" for answer in answers]

    return {
        "problem_id": name,
        "question": f"How many? {ATTACK}",
        "gold": gold,
        "family": family,
        "intuitive": texts(intuitive),
        "knowledge": [ATTACK] * len(deep),
        "deep": texts(deep),
    }


def base_answer(name, answer):
    return {"problem_id": name, "gold": "7", "text": f"--> {answer} END", "finish_reason": "stop"}


@pytest.fixture
def data():
    return ReportData(
        run_name="tiny",
        config_yaml="name: tiny\n",
        rule="paper",
        max_rounds=3,
        attempts=[
            attempts("at once", ["7"], ["7"]),
            attempts("later", ["1", "7"], ["7", "2"]),
            attempts("wrong", ["3"], ["3"], family="new"),
            attempts("never", ["1", "2", "1"], ["4", "5", "6"]),
        ],
        base_answers=[
            base_answer(name, answer)
            for name, answer in [("at once", 7), ("later", 1), ("wrong", 2), ("never", 3)]
        ],
        loss_curves={
            role: [
                LossPoint(step=step, loss=2 / step, learning_rate=1e-3, tokens_per_s=100)
                for step in range(1, 11)
            ]
            for role in Role
        },
        knowledge_details={"num_kept": 4, "num_rejected": 1},
        stage_seconds={"knowledge": 3.0},
        records=["data/tiny/1"],
        unseen_families=frozenset({"new"}),
    )


def test_the_table_is_a_replay_of_the_attempts(data):
    with AnswerChecker() as checker:
        rows = {row.method: row for row in summarize_methods(data, checker)}
    accuracy = {method: row.accuracy for method, row in rows.items()}
    assert accuracy == {
        "base model alone": 0.25,
        "intuitive reasoner alone": 0.25,
        "knowledge -> deep reasoner": 0.5,
        "majority of same attempts": 0.5,
        "mutual feedback": 0.5,
    }
    feedback = rows["mutual feedback"]
    assert (feedback.coverage, feedback.mean_rounds) == (0.75, (1 + 2 + 1 + 3) / 4)
    assert feedback.mean_generations == 3 * feedback.mean_rounds
    assert (feedback.accuracy_seen, feedback.accuracy_unseen) == (2 / 3, 0.0)
    assert feedback.interval[0] < 0.5 < feedback.interval[1]


def test_the_html_is_one_file_without_scripts_or_outside_hosts(data):
    html = render_html(data)
    assert "<script" not in html.lower()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", html)
    assert "&lt;script&gt;" in html
    for part in ("mutual feedback", "data/tiny/1", "They never agree", "60", "<svg"):
        assert part in html
    assert html.count("<polyline") == 3


def test_the_terminal_shows_model_text_as_it_is_within_80_columns(data):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(data, console)
    text = console.export_text()
    assert ATTACK in text
    assert "…" not in text
    assert "First they disagree, then they agree" in text
    row = next(line for line in text.splitlines() if "mutual feedback" in line)
    assert re.findall(r"[\d.]+", row) == ["50.0", "15.0", "85.0", "75", "1.75", "5.25"]


def test_attempts_survive_json(data):
    reread = [json.loads(json.dumps(row)) for row in data.attempts]
    assert reread == data.attempts

"""Problems from rows of every format, and knowledge from whatever a teacher writes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.errors import ConfigError, DataError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.knowledge import parse_knowledge, teacher_prompt
from lorid.method.problems import EnrichedProblem, Problem, problem_from_row, read_problems

GSM8K = {"question": "2 + 3?", "answer": "It is 2 + 3 = <<2+3=5>>5.\n#### 5"}
MATH = {"problem": "Half of 1?", "solution": r"It is $\boxed{\frac{1}{2}}$.", "level": "Level 1"}
OWN = {"question": "2 + 3?", "rationale": "It is 5.", "answer": "5"}


@pytest.mark.parametrize(
    ("row", "answer", "rationale", "style"),
    [
        (GSM8K, "5", "It is 2 + 3 = 5.", "gsm8k"),
        (MATH, r"\frac{1}{2}", MATH["solution"], "math"),
        (OWN, "5", "It is 5.", "gsm8k"),
    ],
)
def test_rows_of_each_format_become_problems(row, answer, rationale, style):
    problem = problem_from_row(row)
    assert (problem.answer, problem.rationale, problem.style) == (answer, rationale, style)


def test_bad_rows_are_set_aside_with_their_number_and_the_rest_goes_on(tmp_path):
    lines = [
        json.dumps(GSM8K),
        "{not json",
        json.dumps({"question": "no answer"}),
        json.dumps([1]),
        "",
        json.dumps({"question": "2 + 4?", "answer": "no mark"}),
        json.dumps(GSM8K),
        json.dumps(MATH),
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines))
    problems, rejected = read_problems(file)
    assert [problem.answer for problem in problems] == ["5", r"\frac{1}{2}"]
    assert [row.row_number for row in rejected] == [2, 3, 4, 6, 7]
    assert "'rationale'" in rejected[1].reason or "'answer'" in rejected[1].reason
    assert "####" in rejected[3].reason
    assert rejected[4].reason == "repeats row 1"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"question": "q", "rationale": "r", "answer": NaN}', "NaN is not a number"),
        ('{"question": "q", "rationale": "r", "answer": null}', "neither text nor a number"),
        ('{"question": "q", "rationale": "r", "answer": [1]}', "neither text nor a number"),
        ('{"question": "q", "rationale": "r", "answer": true}', "neither text nor a number"),
        ('{"question": 5, "answer": "#### 1"}', "'question' or 'problem' is missing"),
        ('{"question": "half \\ud800", "answer": "#### 1"}', "surrogate"),
        (json.dumps({"question": "word " * 10_000, "answer": "#### 1"}), "50000 characters"),
        ("1" * 5000, "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("null", "not a JSON object"),
    ],
)
def test_hostile_rows_are_set_aside_too(tmp_path, line, reason):
    file = tmp_path / "rows.jsonl"
    file.write_text(line + "\n" + json.dumps(GSM8K))
    problems, rejected = read_problems(file)
    assert [problem.answer for problem in problems] == ["5"]
    assert [row.row_number for row in rejected] == [1]
    assert reason in rejected[0].reason


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(GSM8K).encode())
    problems, rejected = read_problems(file)
    assert (len(problems), rejected) == (1, [])


def test_an_id_that_the_endpoint_would_refuse_is_replaced_by_the_content_hash():
    assert problem_from_row({**OWN, "problem_id": "mine"}).problem_id == "mine"
    hashed = problem_from_row(OWN).problem_id
    for refused in ("", "x" * 201, {"a": 1}, 7):
        assert problem_from_row({**OWN, "problem_id": refused}).problem_id == hashed


@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_text_survives_a_jsonl_file(tmp_path_factory, written):
    # Also what str.splitlines takes for the end of a line: U+2028, U+0085, form feeds.
    file = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    rows = [{"text": text} for text in [*written, "a\u2028b\x85c\x0cd\r\ne"]]
    write_jsonl(file, rows)
    assert [row for _, row in read_jsonl(file)] == rows


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl"):
        read_problems(tmp_path / "none.jsonl")
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.jsonl"):
        read_problems(binary)


texts = st.text(max_size=30)


@given(texts, texts, texts, st.lists(texts, max_size=4))
def test_problems_survive_their_rows(question, rationale, answer, rules):
    problem = Problem(problem_id="p", question=question, rationale=rationale, answer=answer)
    enriched = EnrichedProblem(problem=problem, knowledge=tuple(rules))
    assert EnrichedProblem.from_row(json.loads(json.dumps(enriched.to_row()))) == enriched


PROBLEM = problem_from_row({**GSM8K, "question": "Tom has 25 apples and 30 pears. How many?"})


def test_rules_come_out_of_prose_and_fences_without_repeats():
    text = (
        'Here: ```json\n{"output": ["To add,  sum. ", "", "To add, sum.", "Count them all."]}\n```'
    )
    parsed = parse_knowledge(text)
    assert (parsed.rules, parsed.num_repeats) == (("To add, sum.", "Count them all."), 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("I cannot", "not-json"),
        ('{"output": "add"}', "wrong-shape"),
        ('{"output": ["add", 3]}', "wrong-shape"),
        ('{"rules": ["Add the two parts.", "Halve it all."]}', "wrong-shape"),
        ('{"output": []}', "no-rules"),
        ('{"output": ["", " "]}', "no-rules"),
        (json.dumps({"output": [f"a rule on {n}" for n in "abcdef"]}), "too-many-rules"),
        ('{"output": ["Add the parts.", "add the parts"]}', "too-few-rules"),
        (json.dumps({"output": ["x y " * 200, "Add the parts."]}), "long-rule"),
        ('{"output": ["Add 25 to the rest.", "Halve it all."]}', "number-from-question"),
        ('{"output": ["Add the parts.", "Half \\ud800 a pair."]}', "not-json"),
        ('{"output": ["a"', "not-json"),
        ("{" * 100_000, "not-json"),
        ('{"output": ' * 100_000, "not-json"),
        ('{"output": ' + "9" * 5000 + "}", "not-json"),
    ],
)
def test_text_that_is_no_knowledge_is_set_aside_with_its_reason(text, name):
    parsed = parse_knowledge(text, problem=PROBLEM)
    assert parsed.rules == ()
    assert [fault.name for fault in parsed.faults] == [name]
    assert parsed.rejected_because.startswith(f"{name}: ")


def test_a_teacher_template_may_use_question_and_rationale_only():
    prompt = teacher_prompt(PROBLEM, template='Q {question} R {rationale} {{"output": []}}')
    assert prompt == f'Q {PROBLEM.question} R {PROBLEM.rationale} {{"output": []}}'
    with pytest.raises(ConfigError, match="answer"):
        teacher_prompt(PROBLEM, template="{answer}")

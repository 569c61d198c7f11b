"""Problems grouped by their source question, and rows of MetaMathQA matched with it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.errors import DataError
from lorid.jsonl import read_array, read_lines
from lorid.method.problems import Problem, problem_from_row, source_key
from lorid.method.sources import augmented_problem, group_by_source, join, source_of

ROWS = Path(__file__).parents[1] / "data" / "metamath_rows.jsonl"
SHELLS = problem_from_row(
    {
        "question": "Ana has 12 shells. She finds 5 more. How many shells does she have?",
        "answer": "She has 12 + 5 = 17.\n#### 17",
    }
)


def made_from(question: str, number: int = 0, source: str = "") -> Problem:
    return Problem(
        problem_id=f"{question}-{number}",
        question=question,
        rationale="r",
        answer="1",
        source_id=source_key(source) if source else "",
    )


def test_rows_of_metamath_become_problems_of_both_styles():
    rows = [value for _, value in read_lines(ROWS)]
    rephrased, again, _, halved = (augmented_problem(row) for row in rows[:4])
    assert rephrased.rationale.endswith("12 + 5 = 17 shells.")
    assert (rephrased.answer, rephrased.style) == ("17", "gsm8k")
    assert (halved.answer, halved.style) == (r"$\frac{1}{4}$", "math")
    assert halved.rationale.endswith("The answer is: $\\frac{1}{4}$")
    assert source_of(rephrased) == source_of(again) == source_of(SHELLS)


@pytest.mark.parametrize(
    "row",
    [
        [], None, "text", {}, {"query": "q", "original_question": "o", "response": "no mark"},
        {"query": "q", "original_question": "o", "response": "The answer is: "},
        {"query": "q", "original_question": "o", "response": "#### 3\nThe answer is:"},
        {"query": "q", "original_question": 3, "response": "It is.\nThe answer is: 1"},
        {"type": "GSM_SV", "query": "q", "original_question": "o", "response": "The answer is: 1"},
    ],
)  # fmt: skip
def test_a_row_that_is_no_augmentation_is_refused_by_name(row):
    with pytest.raises(DataError):
        augmented_problem(row)


def test_the_teacher_sees_the_gold_source_once():
    rows = [augmented_problem(value) for _, value in list(read_lines(ROWS))[:3]]
    (group,) = group_by_source(rows, sources=[SHELLS])
    assert (group.source, group.num_problems) == (SHELLS, 3)
    assert group.source_id == source_key(SHELLS.question)
    # Without a gold source the problem that asks the source question stands for it.
    (group,) = group_by_source(rows)
    assert (group.source, group.num_problems) == (rows[1], 3)


questions = st.sampled_from(["a b", "a  b", "c", "d"])


@given(st.lists(st.tuples(questions, st.sampled_from(["", "a b", "c", "e"])), max_size=12))
def test_every_problem_is_in_one_group_and_gets_its_knowledge(pairs):
    problems = [made_from(question, n, source) for n, (question, source) in enumerate(pairs)]
    groups = group_by_source(problems)
    assert sum(group.num_problems for group in groups) == len(problems)
    assert len({group.source_id for group in groups}) == len(groups)
    assert [group.source_id for group in groups] == list(dict.fromkeys(map(source_of, problems)))
    knowledge = {group.source_id: (f"rule of {group.source_id}",) for group in groups}
    joined = list(join(problems, knowledge=knowledge))
    assert [item.problem for item in joined] == problems
    assert all(item.knowledge == (f"rule of {source_of(item.problem)}",) for item in joined)
    assert list(join(problems, knowledge={})) == []


def test_an_array_of_rows_is_read_value_by_value(tmp_path):
    file = tmp_path / "rows.json"
    rows = [{"text": "a ] , [ \u2028"}, [], 3]
    for indent in (None, 1):
        file.write_text(json.dumps(rows, indent=indent), encoding="utf-8-sig")
        assert list(read_array(file)) == [(1, rows[0]), (2, []), (3, 3)]
    file.write_text(" [ ] \n")
    assert list(read_array(file)) == []
    file.write_text('[{"a": "\\ud800"}]')
    ((_, value),) = read_array(file)
    assert isinstance(value, DataError)
    for broken in ("", "{}", "[1", "[1] 2", "[1 2]", "[1,]", "[,1]", "[NaN]"):
        file.write_text(broken)
        with pytest.raises(DataError, match=r"rows\.json"):
            list(read_array(file))

"""Extraction and equality of answers, as tables of cases."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.method.answers import extract_answer
from lorid.method.equivalence import AnswerChecker
from lorid.method.problems import read_problems

SHARED = Path(
    os.environ.get("LORID_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)

EXTRACTED = [
    ("He has 3.\n--> 18 END", "18"),
    ("--> 3 END and then --> 4 END", "4"),
    ("text\n#### 72", "72"),
    (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
    (r"\boxed{1} then \boxed{2}", "2"),
    (r"\fbox{7}", "7"),
    ("The answer is: 42", "42"),
    ("The final answer is $x+1$.", "x+1"),
    ("Answer: **12**.", "12"),
    ("A: 5", "5"),
    ("She pays $1,200 for it.", "$1,200"),
    ("it is 3.14.", "3.14"),
    ("nothing here", None),
    ("", None),
]

EQUAL = [
    ("0.5", r"\frac{1}{2}"),
    (r"\$1,000", "1000"),
    ("-3", "\u22123"),
    ("1 1/2", "1.5"),
    (r"1\frac{1}{2}", "3/2"),
    ("50%", r"50\%"),
    (r"\text{ Blue }", "blue"),
    ("1e3", "1000"),
    ("18", "18.0"),
    ("$18", "18"),
    (r"\left(1, 2\right)", "(1, 2)"),
]

# The published code calls each of these equal.
DIFFERENT = [
    ("500", "5"),
    ("5", "0.05"),
    ("70005", "70000"),
    ("1,2", "12"),
    ("t^2", "h^2"),
    ("[1,2]", "(1,2)"),
    ("3 and 4", "34"),
    ("50%", "0.5"),
    ("1/0", "0"),
    ("9**9**9**9", "1"),
    ("1e999999999", "1e999999998"),
    ("", "0"),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTED)
def test_extraction(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("text", ["so far 3 + 4 = 7", "the answer is 1", "#### 12", r"\boxed{1"])
def test_a_text_that_was_cut_off_has_no_answer_without_a_complete_marker(text):
    assert extract_answer(text, truncated=True) is None


def test_a_complete_marker_counts_in_a_text_that_was_cut_off():
    assert extract_answer("--> 7 END and then", truncated=True) == "7"


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal(a, b):
    with AnswerChecker() as checker:
        assert checker.verdict(a, b).equal
        assert checker.verdict(b, a).equal


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different(a, b):
    with AnswerChecker() as checker:
        assert not checker.equal(a, b)
        assert not checker.equal(b, a)


@given(st.text(max_size=60), st.text(max_size=60))
def test_equality_is_reflexive_and_symmetric(a, b):
    checker = AnswerChecker()
    assert checker.equal(a, a)
    assert checker.equal(a, b) == checker.equal(b, a)


@given(st.integers(-(10**9), 10**9))
def test_what_was_written_is_extracted(number):
    assert extract_answer(f"so it is.\n--> {number} END") == str(number)


@pytest.mark.parametrize("unit", ["--> ", "\\boxed{", "{", "END", "#", "answer is ", "1,", "$"])
def test_long_texts_take_no_time_that_grows_faster_than_they_do(unit):
    # 100 kB within the test's own time limit; a quadratic search would take minutes.
    extract_answer(unit * (100_000 // len(unit)))
    AnswerChecker().equal(unit * (100_000 // len(unit)), "1")


@pytest.mark.skipif(not SHARED.is_dir(), reason="GSM8K and LoRID's samples are not here")
@pytest.mark.parametrize("name", ["gsm8k/train", "gsm8k/test", *(
    f"lorid_samples/{kind}_{split}" for kind in ("gsm8k", "math") for split in ("train", "test")
)])  # fmt: skip
def test_every_gold_answer_is_extracted_and_equals_itself(name):
    path = SHARED / f"{name}.jsonl"
    problems, rejected = read_problems(path)
    assert rejected == []
    ids = {problem.problem_id for problem in problems}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(ids) == len(problems) <= len(rows)
    checker = AnswerChecker()
    assert all(checker.equal(problem.answer, problem.answer) for problem in problems)

r"""Which answer a text gives: a table of the formats that models write, and laws.

Rows are written for this test after formats seen in model solutions: LoRID's own target, the
references of GSM8K and MATH, Minerva's closing sentence, Markdown, tags, and plain prose.
"""

import os
import re
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
    ("--> 18 END</s>", "18"),
    ("... so\n--> 18", "18"),
    ("--> 3 END and then --> 4 END", "4"),
    ("text\n#### 72", "72"),
    ("#### 1,234 dollars", "1,234 dollars"),
    ("#### Step 1: think\nSo 4+4=8.\n#### Final Answer\n\\boxed{8}", "8"),
    ("#### Step 3: Add the numbers\nThe sum is 12.", "12"),
    ("so \\boxed{\\frac{1}{2}} it is", "\\frac{1}{2}"),
    ("\\boxed{1} then \\boxed{2}", "2"),
    ("\\fbox{7}", "7"),
    ("\\boxed 5", "5"),
    ("$\\boxed{2}$ and $\\boxed{3}$", "2, 3"),
    ("\\boxed{\\text{(A)}}", "\\text{(A)}"),
    ("\\boxed{\\left\\{1,2\\right\\}}", "\\left\\{1,2\\right\\}"),
    ("\\[\\boxed{x=5}\\]", "x=5"),
    ("$\\boxed{42}$.", "42"),
    ("The answer is: 42", "42"),
    ("The final answer is $x+1$.", "x+1"),
    ("The final answer is $\\frac{3}{4}$. I hope it is correct.", "\\frac{3}{4}"),
    ("Final Answer: The final answer is 7.", "7"),
    ("Answer: **12**.", "12"),
    ("**Answer:** 12", "12"),
    ("**Answer**: $12$", "12"),
    ("**Final Answer:** 12", "12"),
    ("**Final Answer**\n\n12", "12"),
    ("## Answer\n**42**", "42"),
    ("### Final Answer:\n$42$", "42"),
    ("A: 5", "5"),
    ("A: He has 5 apples left.", "5"),
    ("Q: what?\nA: 5", "5"),
    ("The answer is 18 dollars.", "18 dollars"),
    ("Therefore, the answer is $18.", "$18"),
    ("The answer is $18 per day.", "$18 per day"),
    ("So the answer is 5 because 2+3=5.", "5"),
    ("The answer is therefore 5", "5"),
    ("the answer would be 3.5", "3.5"),
    ("The correct answer is (C).", "(C)"),
    ("The correct option is B.", "B"),
    ("The answer is Tuesday.", "Tuesday"),
    ("The answer is x = 5.", "x = 5"),
    ("The answer is $x = 5$", "x = 5"),
    ("The answer is $3$ and $4$.", "3, 4"),
    ("The answer is (3, 4).", "(3, 4)"),
    ("The answer is \\(\\frac{1}{2}\\).", "\\frac{1}{2}"),
    ("The answer to the question is 12.", "12"),
    ("The answer is -3.", "-3"),
    ("The answer is 3/4.", "3/4"),
    ("The answer is 50%.", "50%"),
    ("The answer is 1,234.", "1,234"),
    ("The answer is 3:30 p.m.", "3:30 p.m"),
    ("<answer>42</answer>", "42"),
    ('{"answer": "42"}', "42"),
    ("She pays $1,200 for it.", "$1,200"),
    ("it is 3.14.", "3.14"),
    ("So the probability is $\\frac{3}{4}$.", "\\frac{3}{4}"),
    ("Thus x = 12.", "12"),
    ("Total: 5 + 7 = 12 apples.", "12"),
    ("Thus $x = 2\\sqrt{3}$.", "2\\sqrt{3}"),
    ("He needs 3 1/2 cups", "3 1/2"),
    ("so 3.2 \\times 10^5", "3.2 \\times 10^5"),
    ("nothing here", None),
    ("", None),
    ("The total is **15**.", "15"),
    ("In total, there are -7 degrees.", "-7"),
    ("The answer is \\$1,000.", "\\$1,000"),
    ("Answer: $\\boxed{3}$", "3"),
    ("Hence, the answer is\n$$\\frac{5}{6}$$", "\\frac{5}{6}"),
    ("The answer is:\n\\[ 7 \\]", "7"),
    ("The answer is 7!", "7"),
    ("Answer: 12 cm", "12 cm"),
    ("ANSWER: 9", "9"),
    ("The final answer is: $\\boxed{16}$.", "16"),
    ("The final answer is 16 cups of flour, which is a lot.", "16 cups of flour"),
    ("Thus, Alice has 4 times as many, so 12.", "12"),
    ("The result is 14.", "14"),
    ("Answer: B) 12", "B) 12"),
    ("The answer is **$30**.", "$30"),
    ("the answer is \\boxed{7} apples", "7"),
    ("The answer is 0.", "0"),
    ("The answer is 10 minutes and 30 seconds.", "10 minutes and 30 seconds"),
]

CUT_OFF = [
    "so far 3 + 4 = 7",
    "the answer is 1",
    "#### 12",
    r"\boxed{1",
    "--> 12",
    r"first \boxed{3}, and then \boxed{4",
    "A: 1",
    "<answer>4",
    "",
]
COMPLETE_BEFORE_THE_CUT = [
    ("--> 7 END and then", "7"),
    (r"so \boxed{7} and", "7"),
    ("#### 7\nNow", "7"),
    ("The answer is 7.\nLet me check that", "7"),
    ("<answer>7</answer> since", "7"),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTED)
def test_extraction(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("text", CUT_OFF)
def test_a_text_that_was_cut_off_has_no_answer_without_a_complete_marker(text):
    assert extract_answer(text, truncated=True) is None


@pytest.mark.parametrize(("text", "answer"), COMPLETE_BEFORE_THE_CUT)
def test_a_marker_that_is_complete_counts_in_a_text_that_was_cut_off(text, answer):
    assert extract_answer(text, truncated=True) == answer


written = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.decimals(-(10**6), 10**6, places=3).map(str),
    st.builds(r"\frac{{{}}}{{{}}}".format, st.integers(0, 99), st.integers(1, 99)),
    st.builds("({}, {})".format, st.integers(-9, 9), st.integers(-9, 9)),
    st.integers(0, 10**9).map("{:,}".format),
)


@given(written)
def test_what_was_written_is_extracted(answer):
    forms = (
        f"so it is.\n--> {answer} END",
        f"text\n#### {answer}",
        rf"thus $\boxed{{{answer}}}$.",
        f"The final answer is ${answer}$. I hope it is correct.",
        f"**Answer:** {answer}",
        f"Therefore, the answer is {answer}.",
        f"A: {answer}",
    )
    with AnswerChecker() as checker:
        for text in forms:
            assert checker.equal(extract_answer(text) or "", answer), text


@given(st.text(max_size=300), st.booleans())
def test_any_text_has_an_answer_or_none(text, truncated):
    answer = extract_answer(text, truncated=truncated)
    assert answer is None or (answer.strip() and len(answer) <= 1000)


@pytest.mark.parametrize(
    "unit",
    ["--> ", "\\boxed{", "{", "END", "#### ", "#", "#### Step one two three\n", "answer is ", "1,",
     "$", "$$", "\\(", "\\[", "\\boxed{1} and ", "A: ", "<answer>", "**", "1 1/2 ", ". ", "a",
     "final answer\n", "--> 1 END\n", "\\frac{1}{2}", "100 000 "],
)  # fmt: skip
def test_long_texts_take_no_time_that_grows_faster_than_they_do(unit):
    # 100 kB within the test's own time limit; a quadratic search would take minutes.
    text = unit * (100_000 // len(unit))
    extract_answer(text)
    extract_answer(text, truncated=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="GSM8K and LoRID's samples are not here")
@pytest.mark.parametrize("name", ["gsm8k/train", "gsm8k/test", *(
    f"lorid_samples/{kind}_{split}" for kind in ("gsm8k", "math") for split in ("train", "test")
)])  # fmt: skip
def test_every_gold_answer_is_extracted_and_equals_itself(name):
    problems, rejected = read_problems(SHARED / f"{name}.jsonl")
    assert rejected == []
    with AnswerChecker() as checker:
        for problem in problems:
            text = f"{problem.rationale}\nThe answer is: {problem.answer}"
            assert checker.equal(extract_answer(text) or "", problem.answer), problem.answer
            respelled = re.sub(r"\\[dt]?frac", r"\\dfrac", f" $ {problem.answer} $ ")
            assert checker.equal(problem.answer, respelled), problem.answer

"""Hints: rules that help and keep the answer; where a tutor does not look for departures."""

import pytest

from lorid.method.tutoring import answer_of, find_departure, hint_from

QUESTION = "Natalia sold clips to 48 friends in April, and half as many in May. How many in all?"
GENERAL = "To find a total, add the amounts of all periods."


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("72", "The result is 72."),
        ("72", "It comes to seventy-two in the end."),
        ("72", "There are 72.0 clips in all."),
        ("1,200", "It is one thousand two hundred in all."),
        ("1200", "The total is $1,200 for everything."),
        ("0.5", "Take one half of what there is."),
        ("1/2", "Take 50% of what there is."),
        ("50%", "Multiply the whole by 0.5 at the end."),
        ("0.75", "Take three quarters of the whole."),
        ("3/4", r"Multiply by \frac{3}{4} at the end."),
        ("2", "Twice the amount is what remains."),
        ("12", "A dozen of them are left."),
        ("72", "Add 24 and forty-eight to get it."),
        ("72", "Divide 144 by 2 at the end."),
        ("72", "The last step is 30 + 20 + 22 in all."),
        ("7", "Ignore the 7 days of the week here."),
        ("even", "The sum of odd numbers is even here."),
        (r"2\sqrt{3}", r"The side is 2 \sqrt{3} at last."),
        ("x = 5", "The unknown is 5 in the end."),
        ("99", "She sold 48 of them in April."),
        ("99", "Natalia sells half as many later."),
    ],
)
def test_a_rule_that_tells_is_left_out(answer, rule):
    assert hint_from(f"{rule}\n{GENERAL}", question=QUESTION, answers=[answer]) == (GENERAL,)


def test_each_secret_is_kept():
    text = "The result is 72.\nThe result is 36.\n" + GENERAL
    assert hint_from(text, question=QUESTION, answers=["72", "36"]) == (GENERAL,)


def test_rules_come_without_their_marks_once_and_few():
    rules = [f"1. {GENERAL}", f"- {GENERAL}", "\u2022 A rate > 1 lets a quantity grow.", "", "ok"]
    kept = hint_from("\n".join(rules), question=QUESTION, answers=["72"])
    assert kept == (GENERAL, "A rate > 1 lets a quantity grow.")
    many = "\n".join(f"Rule {word} of it holds for all." for word in "abcdefghij")
    assert len(hint_from(many, question=QUESTION, answers=["72"])) == 5


def test_the_rule_that_was_cut_off_is_no_rule():
    cut = hint_from(f"{GENERAL}\nTo find half, div", question=QUESTION, answers=[], truncated=True)
    assert cut == (GENERAL,)


@pytest.mark.parametrize("text", ["", "\n\n", "x" * 100_000, "7 " * 50_000, "\n" * 50_000])
def test_texts_that_are_no_knowledge_give_no_hint(text):
    assert hint_from(text, question=QUESTION, answers=["72"]) == ()


def test_where_the_question_defines_its_own_signs_nothing_departs():
    text = "2 * 6 = 2^6 + 6^2 = 100"
    assert find_departure(text, question="If $a * b = a^b + b^a$, what is $2 * 6$?") is None
    assert find_departure(text, question="What is it?") is not None


@pytest.mark.parametrize(
    ("submission", "answer"),
    [
        ("72", "72"),
        ("x = 3 or x = -2", "x = 3 or x = -2"),
        ("48/2 = 24\n48 + 24 = 72\n#### 72", "72"),
        ("So it is 5.\n--> 5 END", "5"),
        (r"Hence \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
    ],
)
def test_the_answer_of_worked_and_bare_submissions(submission, answer):
    assert answer_of(submission) == answer

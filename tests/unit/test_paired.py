"""Two methods on the same questions, the label audit, and what a log lacks for a rule."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.method.attempts import judge, parse_attempts_line
from lorid.method.audit import find_suspect
from lorid.method.equivalence import AnswerChecker
from lorid.method.paired import Paired, compare_pairs, mcnemar, paired_interval
from lorid.method.replay import is_whole
from lorid.method.stopping import Policy


@pytest.fixture(scope="module")
def judged():
    """Judges a row of answers; None is a text without one."""
    with AnswerChecker() as checker:

        def made(intuitive, deep, *, gold="7"):
            row = {
                "problem_id": "p", "question": "q", "gold": gold, "knowledge": ["k"] * len(deep),
                **{
                    name: ["none" if answer is None else f"--> {answer} END" for answer in side]
                    for name, side in (("intuitive", intuitive), ("deep", deep))
                },
            }  # fmt: skip
            return judge(parse_attempts_line(row), checker)

        yield made


def rights(text):
    return {str(number): letter == "1" for number, letter in enumerate(text)}


def test_counts_and_difference_are_of_the_shared_questions():
    paired = compare_pairs(rights("110101"), rights("10010"))
    assert (paired.num_problems, paired.num_both, paired.num_only_a, paired.num_only_b) == (
        5,
        2,
        1,
        0,
    )
    assert (paired.difference, paired.num_neither) == (0.2, 2)
    assert Paired.from_dict({**paired.to_dict(), "against": "x"}) == paired


def test_mcnemar_is_the_two_sided_binomial_test():
    # R: binom.test(4, 20)$p.value, binom.test(1, 6)$p.value
    assert mcnemar(4, 16) == pytest.approx(0.01181793, rel=1e-6)
    assert mcnemar(1, 5) == pytest.approx(0.21875)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0
    assert mcnemar(500, 700) < 1e-7


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200))
def test_the_interval_holds_the_difference_and_turns_round_with_the_sides(only_a, only_b, rest):
    count = only_a + only_b + rest
    low, high = paired_interval(only_a, only_b, count)
    if count:
        assert low - 1e-9 <= (only_a - only_b) / count <= high + 1e-9
    turned = paired_interval(only_b, only_a, count)
    # Percentiles of a lattice: from the other side the next point may be the one.
    assert turned == pytest.approx((-high, -low), abs=1.01 / max(1, count))


def test_the_interval_is_what_resampling_gives():
    draws, chance = [], random.Random(3)
    outcomes = [1] * 30 + [-1] * 12 + [0] * 158
    for _ in range(4000):
        draws.append(sum(chance.choices(outcomes, k=200)) / 200)
    draws.sort()
    low, high = paired_interval(30, 12, 200)
    assert low == pytest.approx(draws[100], abs=0.0101)
    assert high == pytest.approx(draws[3899], abs=0.0101)


def test_a_label_is_doubtful_where_every_rule_agrees_on_another_answer(judged):
    suspect = find_suspect(judged([8, 8], [8, 8]))
    assert suspect is not None
    assert (suspect.answer, suspect.num_votes, suspect.num_attempts) == ("8", 4, 4)
    # One round, as paper draws it: bayes could not be sure of anything, and is not asked.
    assert find_suspect(judged([8], [8])) is not None
    for intuitive, deep in (
        ([7], [7]), ([8], [9]), ([9, 8], [8, 8]), ([8, 8], [9, 8]), ([8], [None]), ([], []),
        ([8, 7, 7], [8, 7, 7]), ([8, 1, 2, 3], [8, 4, 5, 6]),
    ):  # fmt: skip
        assert find_suspect(judged(intuitive, deep)) is None
    assert find_suspect(judged([8], [8], gold=None)) is None


@pytest.mark.parametrize(
    ("intuitive", "deep", "rule", "whole"),
    [
        ([7], [7], "paper", True),
        ([7], [8], "paper", False),
        ([7, 8], [8, 1], "paper", True),
        ([7, 8], [8, 1], "same-round", False),
        ([1, 2, 3], [4, 5, 6], "paper", True),
        ([7], [7], "bayes", False),
        ([7], [7], "majority", False),
        ([7], [7], "intuitive-only", True),
        ([7], [], "deep-only", False),
        ([7], [], "paper", False),
        ([], [], "paper", False),
    ],
)
def test_a_log_is_whole_when_the_rule_would_have_drawn_no_more(
    judged, intuitive, deep, rule, whole
):
    assert is_whole(judged(intuitive, deep), policy=Policy(rule=rule, max_rounds=3)) is whole

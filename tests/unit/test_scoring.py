"""Figures over problems, against brute force and cases worked out by hand."""

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import LOGS, logged

from lorid.method.attempts import judge
from lorid.method.calibration import calibrate
from lorid.method.comparison import compare, figures_by_bound
from lorid.method.equivalence import AnswerChecker
from lorid.method.replay import ProblemScore, score
from lorid.method.scoring import (
    bootstrap_interval,
    majority_at_k,
    pass_at_k,
    summarize,
    wilson_interval,
)
from lorid.method.stopping import RULES, Outcome, Policy

CHECKER = AnswerChecker()


def judged(intuitive, deep, **fields):
    return judge(logged(intuitive, deep, **fields), CHECKER)


def made(name="p", *, confidence=None, correct=None, outcome=Outcome.AGREED):
    return ProblemScore(
        problem_id=name,
        answer="1",
        outcome=outcome,
        confidence=confidence,
        num_rounds=1,
        num_generations=3,
        correct=correct,
    )


def test_a_summary_counts_what_happened():
    items = [
        judged(["1"], ["1"]),
        judged(["2", "2"], ["3", "1"]),
        judged([], []),
        judged(["1"], ["1"], gold=None),
    ]
    policy = Policy(max_rounds=20)
    summary = summarize([score(item, policy=policy) for item in items], policy=policy)
    assert (summary.num_problems, summary.num_labelled) == (4, 3)
    assert (summary.accuracy, summary.coverage) == (1 / 3, 2 / 4)
    assert summary.accuracy_when_agreed == 1.0
    assert (summary.mean_rounds, summary.mean_generations) == (1.0, 3.0)
    assert summary.rounds_histogram == {0: 1, 1: 2, 2: 1}
    assert summary.interval == bootstrap_interval(1, 3)
    assert summary.wilson_interval == wilson_interval(1, 3)


def test_without_labels_there_is_no_accuracy_and_without_problems_nothing():
    policy = Policy()
    unlabelled = summarize([made()], policy=policy)
    assert (unlabelled.accuracy, unlabelled.accuracy_when_agreed) == (None, None)
    assert unlabelled.interval == (0.0, 1.0)
    nothing = summarize([], policy=policy)
    assert (nothing.coverage, nothing.mean_rounds, nothing.accuracy) == (0.0, 0.0, None)


def test_wilson_interval_is_the_published_one():
    # 81 of 263: the example of Newcombe 1998, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("num_correct", "count"), [(3, 10), (81, 263), (999, 1000)])
def test_the_bootstrap_interval_is_what_resampling_tends_to(num_correct, count):
    rng = random.Random(0)
    truth = [True] * num_correct + [False] * (count - num_correct)
    shares = sorted(sum(rng.choices(truth, k=count)) / count for _ in range(2000))
    low, high = bootstrap_interval(num_correct, count)
    assert low == pytest.approx(shares[50], abs=0.01 + 1 / count)
    assert high == pytest.approx(shares[1949], abs=0.01 + 1 / count)
    assert low <= num_correct / count <= high


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_hold_their_share_and_mirror(pair):
    num_correct, count = pair
    for interval in (bootstrap_interval, wilson_interval):
        low, high = interval(num_correct, count)
        assert 0 <= low <= num_correct / count <= high <= 1
    low, high = wilson_interval(num_correct, count)
    assert wilson_interval(count - num_correct, count) == pytest.approx((1 - high, 1 - low))


@settings(max_examples=25)
@given(LOGS, LOGS, st.sampled_from([2, 9]))
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_answer(intuitive, deep, max_rounds):
    pool = [a for side in (intuitive, deep) for a in side[:max_rounds]]
    figures = pass_at_k([judged(intuitive, deep, gold="0.5")], max_rounds=max_rounds)
    assert [one.k for one in figures] == list(range(1, len(pool) + 1))
    for one in figures[:5]:
        choices = list(itertools.combinations(pool, one.k))
        share = sum(any(a in ("1/2", "0.5") for a in c) for c in choices) / len(choices)
        assert one.value == pytest.approx(share)


@given(LOGS, LOGS)
def test_majority_at_k_is_the_most_frequent_of_the_first_k(intuitive, deep):
    rounds = itertools.zip_longest(intuitive, deep, fillvalue="never drawn")
    pool = [a for pair in rounds for a in pair if a != "never drawn"]
    pool = [{"1/2": "0.5"}.get(a, a) for a in pool]
    for one in majority_at_k([judged(intuitive, deep)], max_rounds=99):
        # Counter keeps the order of first appearance, and most_common is stable.
        top = Counter(a for a in pool[: one.k] if a is not None).most_common(1)
        assert one.value == (bool(top) and top[0][0] == "1")


def test_a_pool_counts_the_problems_that_have_it():
    items = [judged(["1", "2"], ["1", "2"]), judged(["2"], ["1"]), judged(["1"], ["1"], gold=None)]
    figures = pass_at_k(items, max_rounds=9)
    assert [(one.k, one.num_problems) for one in figures] == [(1, 2), (2, 2), (3, 1), (4, 1)]
    assert figures[0].value == (1 / 2 + 1 / 2) / 2
    majority = majority_at_k(items, max_rounds=9)
    assert [(one.k, one.num_problems) for one in majority] == [(1, 2), (2, 2), (3, 2), (4, 2)]
    assert [one.value for one in majority] == [0.5, 0.5, 0.5, 0.5]


@given(st.lists(st.tuples(LOGS, LOGS), min_size=1, max_size=4))
def test_majority_at_2n_is_the_rule_after_n_rounds(logs):
    items = [
        judged(intuitive[: len(deep)], deep[: len(intuitive)], problem_id=str(number))
        for number, (intuitive, deep) in enumerate(logs)
    ]
    figures = {one.k: one.value for one in majority_at_k(items, max_rounds=9)}
    for bound in figures_by_bound(items, policy=Policy(rule="majority", max_rounds=9)):
        if 2 * bound.max_rounds in figures:
            assert figures[2 * bound.max_rounds] == pytest.approx(bound.accuracy)


def test_calibration_of_a_case_worked_out_by_hand():
    scores = [
        made(confidence=1.0, correct=True),
        made(confidence=0.95, correct=False),
        made(confidence=0.5, correct=True),
        made(confidence=0.5, correct=False),
        made(confidence=0.09, correct=False),
        made(confidence=None, correct=False),
        made(confidence=0.7, correct=None),
    ]
    calibration = calibrate(scores)
    assert calibration.num_answers == 5
    assert calibration.brier == pytest.approx((0.95**2 + 0.25 + 0.25 + 0.09**2) / 5)
    assert [(one.low, one.num_answers, one.accuracy) for one in calibration.bins] == [
        (0.0, 1, 0.0),
        (0.5, 2, 0.5),
        (0.9, 2, 0.5),
    ]
    assert calibration.bins[2].mean_confidence == pytest.approx(0.975)
    assert calibrate([]).brier is None


def test_bounds_end_where_nothing_more_was_drawn():
    items = [judged(["1", "2", "3"], ["4", "5", "6"])]
    for rule, last in (("paper", 3), ("majority", 3), ("intuitive-only", 1)):
        figures = figures_by_bound(items, policy=Policy(rule=rule, max_rounds=10**9))
        assert [one.max_rounds for one in figures] == list(range(1, last + 1))


@settings(max_examples=30)
@given(st.lists(st.tuples(LOGS, LOGS), min_size=1, max_size=8), st.floats(0, 20))
def test_no_rule_that_fits_is_over_the_budget_and_none_wastes_a_whole_round(logs, budget):
    items = [judged(a, b, problem_id=str(number)) for number, (a, b) in enumerate(logs)]
    policies = [Policy(rule=rule, max_rounds=9) for rule in RULES]
    comparison = compare(items, policies=policies, budget=budget)
    for policy, one in zip(policies, comparison.rules, strict=True):
        figures = figures_by_bound(items, policy=policy)
        spent = one.summary.mean_generations
        if not one.within_budget:
            assert figures[0].mean_generations > budget
            continue
        assert spent <= budget + 1e-9
        # What is left is less than a round, or the rule has no use for it.
        left = (budget - spent) * len(items)
        assert left < 3 or spent == pytest.approx(figures[-1].mean_generations)


def test_the_first_rule_sets_the_budget_and_keeps_all_of_it():
    items = [
        judged(["1"] * 6, ["2", "1", "1", "1", "1", "1"], problem_id=str(number))
        for number in range(10)
    ]
    paper, majority = (Policy(rule=rule, max_rounds=6) for rule in ("paper", "majority"))
    comparison = compare(items, policies=[paper, majority])
    assert comparison.budget == 6.0
    first, second = comparison.rules
    assert first.summary.mean_generations == second.summary.mean_generations == 6.0
    assert second.summary.max_rounds == 2
    halfway = compare(items, policies=[majority], budget=7.5).rules[0]
    assert (halfway.summary.max_rounds, halfway.num_with_one_more) == (2, 5)
    assert halfway.summary.mean_generations == 7.5

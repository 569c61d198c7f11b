"""The rules against readings of their own, and the posterior against a numerical integral."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tapes import FULL_TAPES, NUM_ROUNDS, tape

from lorid.method.drivers import run_sync
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import mutual_feedback
from lorid.method.stopping import (
    AnswerClasses,
    Outcome,
    Policy,
    Tally,
    chance_of_majority,
    fewest_rounds_to_come,
    is_satisfied,
)

CHECKER = AnswerChecker()


def value(answer):
    """Equal answers of the tapes as one value."""
    return None if answer is None else {"1/2": 0.5}.get(answer) or float(answer)


def solve(intuitive, deep, rule):
    policy = Policy(rule=rule, max_rounds=NUM_ROUNDS)
    generator = mutual_feedback("q", policy=policy, checker=CHECKER)
    return run_sync(generator, sample=tape(intuitive, deep))


def pooled(intuitive, deep, number):
    """The answers of the first rounds in their order, the intuitive one first."""
    pairs = zip(intuitive[:number], deep[:number], strict=True)
    return [value(answer) for pair in pairs for answer in pair if answer is not None]


@given(FULL_TAPES, FULL_TAPES)
def test_paper_is_the_straightforward_reading(intuitive, deep):
    transcript = solve(intuitive, deep, "paper")
    for number in range(1, NUM_ROUNDS + 1):
        shared = {value(a) for a in intuitive[:number]} & {value(a) for a in deep[:number]} - {None}
        if shared:
            pool = pooled(intuitive, deep, number)
            best = max(pool.count(answer) for answer in shared)
            first = next(a for a in pool if a in shared and pool.count(a) == best)
            assert (transcript.outcome, len(transcript.rounds)) == (Outcome.AGREED, number)
            assert value(transcript.answer) == first
            assert transcript.confidence == pytest.approx(best / len(pool))
            return
    assert transcript.outcome is not Outcome.AGREED
    assert len(transcript.rounds) == NUM_ROUNDS
    pool = pooled(intuitive, deep, NUM_ROUNDS)
    weight = {a: pool.count(a) + 1e-3 * [value(d) for d in deep].count(a) for a in pool}
    expected = max(weight, key=lambda answer: weight[answer], default=None)
    assert value(transcript.answer) == expected


@given(FULL_TAPES, FULL_TAPES)
def test_same_round_and_majority_are_their_straightforward_readings(intuitive, deep):
    pairs = [(value(a), value(b)) for a, b in zip(intuitive, deep, strict=True)]
    equal = [number for number, (a, b) in enumerate(pairs, start=1) if a is not None and a == b]
    transcript = solve(intuitive, deep, "same-round")
    assert len(transcript.rounds) == (equal[0] if equal else NUM_ROUNDS)
    if equal:
        assert value(transcript.answer) == pairs[equal[0] - 1][0]
    pool = pooled(intuitive, deep, NUM_ROUNDS)
    majority = solve(intuitive, deep, "majority")
    assert len(majority.rounds) == NUM_ROUNDS
    assert value(majority.answer) == max(pool, key=pool.count, default=None)


@given(FULL_TAPES, FULL_TAPES)
def test_bayes_stops_at_the_first_round_whose_leader_is_shared_and_sure(intuitive, deep):
    transcript = solve(intuitive, deep, "bayes")
    for number in range(1, NUM_ROUNDS + 1):
        pool = pooled(intuitive, deep, number)
        leader = max(pool, key=pool.count, default=None)
        counts = sorted((pool.count(answer) for answer in set(pool)), reverse=True)
        first, second, *_ = [*counts, 0, 0]
        both = all(leader in [value(a) for a in side[:number]] for side in (intuitive, deep))
        if leader is not None and both and chance_of_majority(first, second) >= 0.95:
            assert (transcript.outcome, len(transcript.rounds)) == (Outcome.AGREED, number)
            assert value(transcript.answer) == leader
            assert transcript.confidence == chance_of_majority(first, second)
            return
    assert transcript.outcome is not Outcome.AGREED


@pytest.mark.parametrize(("votes", "rival"), [(0, 0), (1, 0), (3, 1), (2, 5), (12, 9), (40, 33)])
def test_the_posterior_is_the_integral_of_the_beta_density(votes, rival):
    def density(p):
        return p**votes * (1 - p) ** rival

    def integral(low, high, steps=20_000):
        width = (high - low) / steps
        return width * sum(density(low + (n + 0.5) * width) for n in range(steps))

    expected = integral(0.5, 1) / integral(0, 1)
    assert chance_of_majority(votes, rival) == pytest.approx(expected, rel=1e-6)


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_posterior_is_symmetric_and_grows_with_votes(votes, rival):
    chance = chance_of_majority(votes, rival)
    assert chance + chance_of_majority(rival, votes) == pytest.approx(1)
    assert chance <= chance_of_majority(votes + 1, rival) <= 1
    assert chance_of_majority(votes, votes) == 0.5


CLASSES = st.lists(st.tuples(*[st.sampled_from([0, 1, None])] * 2), max_size=5)


@given(CLASSES, CLASSES, st.sampled_from(["paper", "same-round", "bayes", "majority"]))
def test_no_future_satisfies_a_rule_before_the_rounds_it_cannot_do_without(past, future, rule):
    policy = Policy(rule=rule, max_rounds=10, tau=0.9)
    tally = Tally()
    for intuitive, deep in past:
        tally.add(intuitive=intuitive, deep=deep)
    if is_satisfied(policy, tally):
        return
    fewest = fewest_rounds_to_come(policy, tally)
    assert fewest >= 1
    for number, (intuitive, deep) in enumerate(future, start=1):
        tally.add(intuitive=intuitive, deep=deep)
        if is_satisfied(policy, tally):
            assert number >= fewest
            return


def test_classes_are_numbered_by_first_appearance_whatever_comes_later():
    class Nearly(AnswerChecker):
        """Not transitive: neighbours are equal."""

        def equal(self, a: str, b: str) -> bool:
            return abs(int(a) - int(b)) <= 1

    answers = ["5", "6", "7", "4", "", None, "6"]
    classes = AnswerClasses(Nearly())
    assert [classes.class_of(answer) for answer in answers] == [0, 0, 1, 0, None, None, 0]
    assert classes.texts == ["5", "7"]

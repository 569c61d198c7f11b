"""Mutual feedback: the rule, the transcript, the same decisions in every driver and replay."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.errors import DataError
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import (
    Ask,
    Outcome,
    Policy,
    Sampled,
    generation_seed,
    mutual_feedback,
    run_async,
    run_sync,
)
from lorid.method.roles import Role
from lorid.method.scoring import parse_attempts_line, replay, summarize, wilson_interval

CHECKER = AnswerChecker()


def tape(intuitive: list[str | None], deep: list[str | None]):
    """A function that samples from fixed answers; None is a text without an answer."""

    def text(answer: str | None) -> str:
        return "no idea" if answer is None else f"so.\n--> {answer} END"

    def sample(ask: Ask) -> Sampled:
        if ask.role is Role.KNOWLEDGE_GENERATOR:
            return Sampled(text=f"rule {ask.round_index}", num_tokens=3)
        side = intuitive if ask.role is Role.INTUITIVE_REASONER else deep
        return Sampled(text=text(side[ask.round_index % len(side)]), num_tokens=5)

    return sample


def solve(intuitive, deep, *, rule="paper", max_rounds=4, on_exhaustion="plurality"):
    policy = Policy(rule=rule, max_rounds=max_rounds, on_exhaustion=on_exhaustion)
    generator = mutual_feedback("q", policy=policy, checker=CHECKER)
    return run_sync(generator, sample=tape(intuitive, deep))


def test_agreement_in_the_first_round_stops_at_once():
    transcript = solve(["0.5"], [r"\frac{1}{2}"])
    assert (transcript.outcome, transcript.answer) == (Outcome.AGREED, "0.5")
    assert transcript.num_generations == 3
    assert transcript.num_tokens == 13


def test_the_sets_are_cumulative_across_rounds():
    transcript = solve(["1", "2"], ["3", "1"])
    assert (transcript.answer, len(transcript.rounds)) == ("1", 2)
    assert [one.agreed for one in transcript.rounds] == [False, True]


def test_the_same_round_rule_needs_both_in_one_round():
    transcript = solve(["1", "2", "5"], ["3", "1", "5"], rule="same-round")
    assert (transcript.answer, len(transcript.rounds)) == ("5", 3)


def test_ties_among_agreed_answers_go_to_more_votes_then_to_the_first():
    # Round 2 makes 1 and 2 shared at once: 1 came first.
    assert solve(["1", "2"], ["2", "1"]).answer == "1"
    # 2 has three votes when the sets meet.
    assert solve(["2", "2", "1"], ["3", "1", "2"], max_rounds=3).answer == "2"


def test_without_agreement_the_plurality_answers_and_deep_votes_break_ties():
    transcript = solve(["1", "2"], ["3", "4"], max_rounds=2)
    assert (transcript.outcome, transcript.answer) == (Outcome.EXHAUSTED, "3")
    abstained = solve(["1"], ["3"], max_rounds=2, on_exhaustion="abstain")
    assert (abstained.outcome, abstained.answer) == (Outcome.NO_ANSWER, None)


def test_empty_answers_never_agree():
    transcript = solve([None], [None], max_rounds=2)
    assert (transcript.outcome, transcript.answer) == (Outcome.NO_ANSWER, None)
    assert transcript.confidence is None


@pytest.mark.parametrize(
    ("rule", "answer", "drawn"), [("intuitive-only", "1", 1), ("deep-only", "2", 2)]
)
def test_one_side_alone_asks_only_what_it_needs(rule, answer, drawn):
    transcript = solve(["1"], ["2"], rule=rule)
    assert (transcript.answer, transcript.num_generations) == (answer, drawn)


def test_the_deep_reasoner_reads_the_raw_knowledge_of_its_round():
    asked: list[Ask] = []
    sample = tape(["1"], ["2"])

    def remember(ask: Ask) -> Sampled:
        asked.append(ask)
        return sample(ask)

    run_sync(mutual_feedback("q", policy=Policy(max_rounds=2), checker=CHECKER), sample=remember)
    deep = [ask.knowledge for ask in asked if ask.role is Role.DEEP_REASONER]
    assert deep == ["rule 0", "rule 1"]


answers = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=4, max_size=4)


@given(answers, answers, st.sampled_from(["paper", "same-round", "intuitive-only", "deep-only"]))
def test_sync_async_and_replay_decide_alike(intuitive, deep, rule):
    policy = Policy(rule=rule, max_rounds=4)
    sample = tape(intuitive, deep)

    async def sampled(ask: Ask) -> Sampled:
        await asyncio.sleep(0)
        return sample(ask)

    def generator():
        return mutual_feedback("q", policy=policy, checker=CHECKER)

    sync = run_sync(generator(), sample=sample)
    assert asyncio.run(run_async(generator(), sample=sampled)) == sync
    line = json.dumps(sync.attempts_row(problem_id="p", gold="1"))
    (score,) = replay([parse_attempts_line(line)], policy=policy, checker=CHECKER)
    assert (score.answer, score.outcome) == (sync.answer, sync.outcome)
    assert score.num_rounds == len(sync.rounds)
    assert score.num_generations == sync.num_generations


@given(answers, answers)
def test_the_paper_rule_is_the_straightforward_reading(intuitive, deep):
    transcript = solve(intuitive, deep)
    for number in range(1, 5):
        shared = {a for a in intuitive[:number] if a} & {a for a in deep[:number] if a}
        if shared:
            assert (transcript.outcome, len(transcript.rounds)) == (Outcome.AGREED, number)
            assert transcript.answer in shared
            return
    assert transcript.outcome is not Outcome.AGREED


def test_a_failing_sampler_cancels_its_siblings_and_its_error_comes_out():
    cancelled = []

    async def sample(ask: Ask) -> Sampled:
        if ask.role is Role.INTUITIVE_REASONER:
            raise DataError("broken")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(ask.role)
            raise
        raise AssertionError

    generator = mutual_feedback("q", policy=Policy(), checker=CHECKER)
    with pytest.raises(DataError, match="broken"):
        asyncio.run(run_async(generator, sample=sample))
    assert cancelled == [Role.KNOWLEDGE_GENERATOR]


def test_seeds_differ_by_question_role_round_and_seed_alone():
    ask = Ask(role=Role.INTUITIVE_REASONER, round_index=0)
    seeds = {
        generation_seed(1, question="q", ask=ask),
        generation_seed(2, question="q", ask=ask),
        generation_seed(1, question="r", ask=ask),
        generation_seed(1, question="q", ask=Ask(role=Role.DEEP_REASONER, round_index=0)),
        generation_seed(1, question="q", ask=Ask(role=ask.role, round_index=1)),
    }
    assert len(seeds) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_the_oracle_rule_looks_at_the_label_and_the_paper_rule_does_not():
    row = {"problem_id": "p", "gold": "2", "intuitive": ["--> 1 END", "--> 2 END"],
           "knowledge": ["k", "k"], "deep": ["--> 2 END", "--> 1 END"]}  # fmt: skip
    attempts = [parse_attempts_line(row)]
    answer = {
        rule: replay(attempts, policy=Policy(rule=rule), checker=CHECKER)[0].answer
        for rule in ("paper", "paper-oracle", "majority")
    }
    assert answer == {"paper": "1", "paper-oracle": "2", "majority": "1"}


def test_a_summary_counts_what_happened():
    rows = [
        {"problem_id": "a", "gold": "1", "intuitive": ["--> 1 END"], "knowledge": ["k"],
         "deep": ["--> 1 END"]},
        {"problem_id": "b", "gold": "1", "intuitive": ["--> 2 END"], "knowledge": ["k"],
         "deep": [{"text": "--> 3", "finish_reason": "length"}]},
    ]  # fmt: skip
    policy = Policy(max_rounds=20)
    scores = replay([parse_attempts_line(row) for row in rows], policy=policy, checker=CHECKER)
    summary = summarize(scores, policy=policy)
    assert (summary.accuracy, summary.coverage, summary.accuracy_when_agreed) == (0.5, 0.5, 1.0)
    assert summary.mean_generations == 3
    assert summary.interval == pytest.approx(wilson_interval(1, 2))


def test_wilson_interval_is_the_published_one():
    # 81 of 263: the example of Newcombe 1998, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"problem_id": "a", "deep": 3}',
                                  '{"problem_id": "a", "deep": [{"no": "text"}]}'])  # fmt: skip
def test_a_bad_attempts_line_is_explained(line):
    with pytest.raises(DataError):
        parse_attempts_line(line)

"""Mutual feedback: what is asked, what each rule decides, and the transcript."""

import pytest
from tapes import tape

from lorid.errors import ConfigError
from lorid.method.drivers import run_sync
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, generation_seed, mutual_feedback
from lorid.method.roles import Role
from lorid.method.stopping import LIVE_RULES, Outcome, Policy, chance_of_majority

CHECKER = AnswerChecker()


def solve(intuitive, deep, *, rule="paper", max_rounds=4, sample=None, **policy):
    generator = mutual_feedback(
        "q", policy=Policy(rule=rule, max_rounds=max_rounds, **policy), checker=CHECKER
    )
    return run_sync(generator, sample=sample or tape(intuitive, deep))


def decided(transcript):
    return transcript.outcome, transcript.answer, len(transcript.rounds)


def test_agreement_in_the_first_round_stops_at_once():
    transcript = solve(["0.5"], [r"\frac{1}{2}"])
    assert decided(transcript) == (Outcome.AGREED, "0.5", 1)
    assert (transcript.num_generations, transcript.num_wasted) == (3, 0)
    assert (transcript.num_tokens, transcript.num_prompt_tokens) == (13, 5)


def test_the_sets_are_cumulative_across_rounds():
    transcript = solve(["1", "2"], ["3", "1"])
    assert decided(transcript) == (Outcome.AGREED, "1", 2)
    assert [one.agreed for one in transcript.rounds] == [False, True]


def test_the_same_round_rule_needs_both_in_one_round():
    transcript = solve(["1", "2", "5"], ["3", "1", "5"], rule="same-round")
    assert decided(transcript) == (Outcome.AGREED, "5", 3)


def test_ties_among_agreed_answers_go_to_more_votes_then_to_the_first():
    # Round 2 makes 1 and 2 shared at once: 1 came first.
    assert solve(["1", "2"], ["2", "1"]).answer == "1"
    # 2 has three votes when the sets meet.
    assert solve(["2", "2", "1"], ["3", "1", "2"], max_rounds=3).answer == "2"


def test_without_agreement_the_plurality_answers_and_deep_votes_break_ties():
    transcript = solve(["1", "2"], ["3", "4"], max_rounds=2)
    assert decided(transcript) == (Outcome.EXHAUSTED, "3", 2)
    # A deep vote counts slightly more, not twice: two intuitive votes beat it.
    assert solve(["1", "1"], ["3", "4"], max_rounds=2).answer == "1"
    abstained = solve(["1"], ["3"], max_rounds=2, on_exhaustion="abstain")
    assert decided(abstained) == (Outcome.NO_ANSWER, None, 2)


@pytest.mark.parametrize("rule", LIVE_RULES)
def test_texts_without_an_answer_never_agree(rule):
    transcript = solve([None], [None], max_rounds=2, rule=rule)
    assert transcript.outcome is Outcome.NO_ANSWER
    assert (transcript.answer, transcript.confidence) == (None, None)


@pytest.mark.parametrize(
    ("rule", "answer", "num_generations"), [("intuitive-only", "1", 1), ("deep-only", "2", 2)]
)
def test_one_side_alone_asks_only_what_it_needs(rule, answer, num_generations):
    transcript = solve(["1"], ["2"], rule=rule)
    assert decided(transcript) == (Outcome.AGREED, answer, 1)
    assert transcript.num_generations == num_generations


def test_majority_draws_every_round_then_takes_the_most_frequent():
    transcript = solve(["1", "2", "2"], ["3", "4", "2"], rule="majority", max_rounds=3)
    assert decided(transcript) == (Outcome.AGREED, "2", 3)
    assert transcript.confidence == 3 / 6
    assert [one.agreed for one in transcript.rounds] == [False, False, True]


def test_bayes_wants_both_sides_and_a_posterior():
    # Four votes pass 0.95 (31/32), three do not (15/16).
    unanimous = solve(["1"], ["1"], rule="bayes", max_rounds=9)
    assert decided(unanimous) == (Outcome.AGREED, "1", 2)
    assert unanimous.confidence == 31 / 32
    # Nine votes of one side alone are no agreement.
    one_sided = solve(["1"], [None], rule="bayes", max_rounds=9)
    assert decided(one_sided) == (Outcome.EXHAUSTED, "1", 9)
    assert one_sided.confidence == 1 - 2**-10
    sooner = solve(["1"], ["1"], rule="bayes", max_rounds=9, tau=0.8)
    assert decided(sooner) == (Outcome.AGREED, "1", 1)


def test_bayes_gives_a_fallback_its_confidence_too():
    transcript = solve(["1", "2"], ["2", "1"], rule="bayes", max_rounds=2)
    assert decided(transcript) == (Outcome.EXHAUSTED, "1", 2)
    assert transcript.confidence == chance_of_majority(2, 2) == 0.5


def test_the_deep_reasoner_reads_the_raw_knowledge_of_its_round():
    asked: list[Ask] = []
    sample = tape(["1"], ["2"])

    def remember(ask: Ask) -> Sampled:
        asked.append(ask)
        return sample(ask)

    solve([], [], max_rounds=2, sample=remember)
    deep = [ask.knowledge for ask in asked if ask.role is Role.DEEP_REASONER]
    assert deep == ["rule 0", "rule 1"]


def test_a_text_that_was_cut_off_answers_by_complete_markers_alone():
    def sample(ask: Ask) -> Sampled:
        text = "It is 7 apples" if ask.role is Role.INTUITIVE_REASONER else "--> 7 END and 8"
        return Sampled(text=text, truncated=True)

    transcript = solve([], [], max_rounds=1, sample=sample)
    (only,) = transcript.rounds
    assert (only.intuitive.answer, only.deep.answer) == (None, "7")
    row = transcript.attempts_row(problem_id="p")
    assert [element["finish_reason"] for element in row["deep"]] == ["length"]


def test_the_rule_that_reads_the_label_cannot_solve():
    with pytest.raises(ConfigError, match="label"):
        mutual_feedback("q", policy=Policy(rule="paper-oracle"), checker=CHECKER)


@pytest.mark.parametrize("wrong", [{"rule": "best"}, {"max_rounds": 0}, {"tau": 0.5}, {"tau": 1}])
def test_a_policy_out_of_range_is_refused(wrong):
    with pytest.raises(ConfigError):
        Policy(**wrong)


def test_a_reply_to_nothing_asked_is_refused():
    generator = mutual_feedback("q", policy=Policy(), checker=CHECKER)
    next(generator)
    stranger = Ask(role=Role.DEEP_REASONER, round_index=0, knowledge="k")
    with pytest.raises(ValueError, match="not asked"):
        generator.send([(stranger, Sampled(text=""))])


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

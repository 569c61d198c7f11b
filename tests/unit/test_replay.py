"""A replay decides what was decided live, at every bound, and never looks at the label."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from tapes import FULL_TAPES, LOGS, NUM_ROUNDS, logged, tape, text_of

from lorid.errors import DataError
from lorid.jsonl import read_lines
from lorid.method.attempts import join_intuitive, judge, parse_attempts_line, read_attempts
from lorid.method.drivers import run_sync
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import mutual_feedback
from lorid.method.replay import replay, score, scores_by_bound
from lorid.method.stopping import LIVE_RULES, RULES, Outcome, Policy

CHECKER = AnswerChecker()


def scored(item, **policy):
    return score(judge(item, CHECKER), policy=Policy(**policy))


def decided(score):
    return score.outcome, score.answer, score.num_rounds


@settings(max_examples=40)
@given(FULL_TAPES, FULL_TAPES)
def test_live_questions_replay_alike_from_what_they_logged(intuitive, deep):
    for rule in LIVE_RULES:
        for on_exhaustion in ("plurality", "abstain"):
            policy = Policy(rule=rule, max_rounds=4, on_exhaustion=on_exhaustion, tau=0.8)
            generator = mutual_feedback("q", policy=policy, checker=CHECKER)
            live = run_sync(generator, sample=tape(intuitive, deep))
            line = json.dumps(live.attempts_row(problem_id="p", gold="1"))
            (again,) = replay([parse_attempts_line(line)], policy=policy, checker=CHECKER)
            assert decided(again) == (live.outcome, live.answer, len(live.rounds))
            assert again.confidence == live.confidence
            assert again.num_generations == live.num_generations
            # All that could have been drawn decides like what was.
            whole = score(judge(logged(intuitive, deep), CHECKER), policy=policy)
            assert whole == again


@given(LOGS, LOGS)
def test_one_pass_over_the_bounds_is_a_replay_at_each(intuitive, deep):
    judged = judge(logged(intuitive, deep), CHECKER)
    for rule in RULES:
        scores = scores_by_bound(judged, policy=Policy(rule=rule, max_rounds=NUM_ROUNDS + 2))
        for bound in range(1, NUM_ROUNDS + 3):
            alone = score(judged, policy=Policy(rule=rule, max_rounds=bound))
            assert scores[min(bound, len(scores)) - 1] == alone


@given(LOGS, LOGS)
def test_the_label_changes_the_oracle_alone_and_only_for_the_better(intuitive, deep):
    items = [judge(logged(intuitive, deep, gold=gold), CHECKER) for gold in ("1", "2", "0.5", None)]
    for rule in LIVE_RULES:
        assert len({decided(score(item, policy=Policy(rule=rule))) for item in items}) == 1
    for item in items:
        paper, oracle = (
            score(item, policy=Policy(rule=rule)) for rule in ("paper", "paper-oracle")
        )
        assert oracle.num_rounds == paper.num_rounds
        assert (oracle.outcome is Outcome.AGREED) == (paper.outcome is Outcome.AGREED)
        if item.right is None:
            assert oracle.correct is None
        elif paper.outcome is Outcome.AGREED:
            assert oracle.correct >= paper.correct
        else:
            assert (oracle.answer, oracle.correct) == (None, False)


@given(LOGS, LOGS)
def test_the_oracle_scores_as_published(intuitive, deep):
    oracle = scored(logged(intuitive, deep, gold="1/2"), rule="paper-oracle")
    value = {"1": 1.0, "2": 2.0, "3": 3.0, "1/2": 0.5, "0.5": 0.5}
    for number in range(1, NUM_ROUNDS + 1):
        shared = {value[a] for a in intuitive[:number] if a} & {
            value[a] for a in deep[:number] if a
        }
        if shared:
            assert (oracle.num_rounds, oracle.correct) == (number, 0.5 in shared)
            return
    assert (oracle.num_rounds, oracle.correct) == (max(len(intuitive), len(deep)), False)


def test_a_shorter_list_is_a_round_that_was_never_drawn_on_that_side():
    # The third intuitive attempt still meets the first deep one.
    item = logged(["1", "2", "3"], ["3", "4"], gold="3")
    assert decided(scored(item)) == (Outcome.AGREED, "3", 3)
    assert scored(item).num_generations == 3 + 2 + 2
    assert decided(scored(item, max_rounds=2)) == (Outcome.EXHAUSTED, "3", 2)
    assert decided(scored(item, rule="same-round")) == (Outcome.EXHAUSTED, "3", 3)
    # What was never drawn is never counted, however many rounds are allowed.
    assert scored(logged(["1"], ["2"]), max_rounds=50).num_rounds == 1


@pytest.mark.parametrize("rule", RULES)
def test_a_problem_without_attempts_has_no_answer_and_no_rounds(rule):
    empty = scored(logged([], []), rule=rule)
    assert decided(empty) == (Outcome.NO_ANSWER, None, 0)
    assert (empty.num_generations, empty.confidence, empty.correct) == (0, None, False)


def test_one_side_alone_is_its_first_attempt():
    item = logged(["1", "2"], ["3", "3"])
    assert decided(scored(item, rule="intuitive-only")) == (Outcome.AGREED, "1", 1)
    assert decided(scored(item, rule="deep-only")) == (Outcome.AGREED, "3", 1)
    assert scored(logged(["1"], []), rule="deep-only").num_rounds == 0
    nothing = scored(logged([None, "2"], ["3"]), rule="intuitive-only")
    assert decided(nothing) == (Outcome.NO_ANSWER, None, 1)


def test_majority_is_over_all_that_was_drawn_on_either_side():
    item = logged(["1", "2", "2"], [], gold="2")
    assert decided(scored(item, rule="majority")) == (Outcome.AGREED, "2", 3)
    assert scored(item, rule="majority").num_generations == 3


def test_texts_that_were_cut_off_answer_by_complete_markers_alone():
    row = {
        "problem_id": "p",
        "gold": "7",
        "intuitive": [{"text": "It is 7", "finish_reason": "length", "num_tokens": 9}],
        "knowledge": ["k"],
        "deep": [{"text": "--> 7 END or", "finish_reason": "length"}],
    }
    judged = judge(parse_attempts_line(row), CHECKER)
    assert (judged.intuitive, judged.deep, judged.texts) == ((None,), (0,), ("7",))


def test_gold_may_be_a_number_and_the_other_fields_are_ignored():
    item = parse_attempts_line({"problem_id": "a", "gold": 7, "deep": ["--> 7 END"], "family": "x"})
    assert scored(item, rule="deep-only").correct is True


@pytest.fixture
def lines_of(tmp_path):
    """Lines of a file, numbered and read."""

    def written(*lines):
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        return read_lines(tmp_path / "a.jsonl")

    return written


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"problem_id": 3, "deep": []}',
        '{"problem_id": "a"}',
        '{"problem_id": "a", "deep": 3}',
        '{"problem_id": "a", "deep": [{"no": "text"}]}',
        '{"problem_id": "a", "deep": [{"text": 3}]}',
        '{"problem_id": "a", "deep": [null]}',
        '{"problem_id": "a", "deep": [{"text": "b", "num_tokens": "many"}]}',
        '{"problem_id": "a", "deep": [{"text": "b", "num_tokens": -1}]}',
        '{"problem_id": "a", "deep": [], "gold": ["1"]}',
        '{"problem_id": "a", "deep": [], "question": 3}',
        '{"problem_id": "a", "deep": [], "n": ' + "1" * 5000 + "}",
        "[" * 200_000,
    ],
)
def test_a_bad_line_is_named_with_its_file_and_number(lines_of, line):
    good = '{"problem_id": "good", "deep": []}'
    with pytest.raises(DataError, match=r"^a\.jsonl, line 3: .+") as caught:
        read_attempts(lines_of(good, "", line), source="a.jsonl")
    assert "\n" not in str(caught.value)


def test_a_problem_that_occurs_twice_names_both_lines(lines_of):
    lines = lines_of(*(json.dumps({"problem_id": name, "deep": []}) for name in ("a", "b", "a")))
    with pytest.raises(DataError, match=r"line 3: problem_id 'a' is on line 1"):
        read_attempts(lines, source="a.jsonl")
    with pytest.raises(DataError, match="no attempts"):
        read_attempts(lines_of("", " "), source="a.jsonl")


def test_intuitive_attempts_of_another_file_are_joined_by_id_then_by_question():
    ours = [
        replace(logged(["1"], ["2"], problem_id="a"), question="A?"),
        replace(logged(["1"], ["3"], problem_id="b"), question="B?"),
        replace(logged(["1"], ["4"], problem_id="c"), question="C?"),
        replace(logged(["1"], ["5"], problem_id="d", gold=None), question="D?"),
    ]
    theirs = [
        replace(logged(["7"], [], problem_id="a"), question="another wording"),
        replace(logged(["8"], [], problem_id="x"), question="B? "),
        replace(logged(["9"], [], problem_id="y"), question="Y?"),
        replace(logged(["6"], [], problem_id="d", gold="5"), question=""),
    ]
    joined = join_intuitive(ours, theirs)
    sides = [(i.problem_id, i.intuitive[0].text, i.deep[0].text, i.gold) for i in joined.attempts]
    assert sides == [
        ("a", text_of("7"), text_of("2"), "1"),
        ("b", text_of("8"), text_of("3"), "1"),
        ("d", text_of("6"), text_of("5"), "5"),
    ]
    assert (joined.without_intuitive, joined.without_deep) == (("c",), ("y",))
    assert joined.renamed == ("a",)
    with pytest.raises(DataError, match="no problem is in both"):
        join_intuitive(ours[2:3], theirs[2:3])


def test_a_question_that_the_other_file_has_twice_matches_nothing():
    ours = [logged(["1"], ["2"], problem_id="a"), logged(["1"], ["2"], problem_id="b")]
    theirs = [logged(["1"], [], problem_id=name) for name in ("b", "x")]
    assert join_intuitive(ours, theirs).without_intuitive == ("a",)

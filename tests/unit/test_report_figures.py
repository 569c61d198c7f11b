"""The report's numbers, against what plain loops over the same answers say."""

import csv
import io
import re
from collections import Counter

import pytest
from report_rows import random_rows, report_data, row, texts
from rich.console import Console

from lorid.method.attempts import parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.gate import GateLimits
from lorid.method.replay import replay
from lorid.method.roles import Role
from lorid.method.scoring import summarize, wilson_interval
from lorid.method.stopping import RULES
from lorid.report import figures
from lorid.report.analysis import analyse
from lorid.report.buckets import BUCKETS
from lorid.report.data import LossPoint, StageCost, loss_summary
from lorid.report.plots import draw
from lorid.report.terminal import print_summary

ATTACK = "<script>alert(1)</script>[bold]"
NUM_ROUNDS = 5
ANSWER = re.compile(r"--> (\S+) END")


@pytest.fixture(scope="module")
def rows():
    return random_rows(80, num_rounds=NUM_ROUNDS)


@pytest.fixture(scope="module")
def analysis(rows):
    return analyse(report_data(rows, max_rounds=NUM_ROUNDS))


def figure(analysis, name):
    return next(one for one in figures.figures_of(analysis) if one.name == name)


def answer_in(text):
    found = ANSWER.search(text)
    return found[1] if found else None


def solved_by_paper(one, bound):
    """The paper's rule in plain loops: rounds, whether the sets met, answer, its share of votes."""
    sides = ([], [])
    for number in range(1, bound + 1):
        for side, name in zip(sides, ("intuitive", "deep"), strict=True):
            answer = answer_in(one[name][number - 1])
            side.append(answer)
        met = {a for a in sides[0] if a} & {a for a in sides[1] if a}
        if met or number == bound:
            break
    order = [a for pair in zip(*sides, strict=True) for a in pair if a]
    votes, deep = Counter(order), Counter(a for a in sides[1] if a)
    if met:
        answer = max(met, key=lambda a: (votes[a], -order.index(a)))
    else:
        key = {a: (votes[a], deep[a], -order.index(a)) for a in votes}
        answer = max(key, key=key.__getitem__, default=None)
    share = votes[answer] / len(order) if order else None
    return number, bool(met), answer, share


def test_accuracy_and_coverage_over_n(analysis, rows):
    found = figure(analysis, figures.ACCURACY_OVER_N)
    assert found.column("max_rounds") == list(range(1, NUM_ROUNDS + 1))
    for bound, got in enumerate(found.rows, start=1):
        solved = [solved_by_paper(one, bound) for one in rows]
        num_right = sum(answer == "7" for _, _, answer, _ in solved)
        mean_rounds = sum(rounds for rounds, *_ in solved) / len(rows)
        assert got == pytest.approx(
            (
                bound,
                num_right / len(rows),
                *wilson_interval(num_right, len(rows)),
                sum(met for _, met, *_ in solved) / len(rows),
                mean_rounds,
                3 * mean_rounds,
            )
        )


def test_the_histogram_counts_rounds_by_how_they_ended(analysis, rows):
    solved = [solved_by_paper(one, NUM_ROUNDS) for one in rows]
    counts = Counter((rounds, answer == "7") for rounds, _, answer, _ in solved)
    assert figure(analysis, figures.ROUNDS).rows == [
        (number, counts[number, True], counts[number, False], 0)
        for number in sorted({number for number, _ in counts})
    ]


def test_every_rule_at_every_bound_is_what_a_replay_of_the_texts_gives(analysis, rows):
    found = figure(analysis, figures.ACCURACY_OVER_GENERATIONS)
    attempts = [parse_attempts_line(one) for one in rows]
    assert set(found.column("rule")) == set(RULES)
    with AnswerChecker() as checker:
        for rule, bound, generations, accuracy, coverage in found.rows:
            policy = report_data(rows, max_rounds=bound).policy(rule)
            summary = summarize(replay(attempts, policy=policy, checker=checker), policy=policy)
            assert (generations, accuracy, coverage) == (
                summary.mean_generations,
                summary.accuracy,
                summary.coverage,
            )


def test_calibration_bins_shares_of_votes(analysis, rows):
    bins = {}
    for one in rows:
        *_, answer, share = solved_by_paper(one, NUM_ROUNDS)
        if share is not None:
            bins.setdefault(min(int(share * 10), 9), []).append((share, answer == "7"))
    got = [r for r in figure(analysis, figures.CALIBRATION).rows if r[0] == "paper"]
    assert [r[3] for r in got] == [len(bins[number]) for number in sorted(bins)]
    for (_, low, _, number, confidence, accuracy), key in zip(got, sorted(bins), strict=True):
        held = bins[key]
        assert low == pytest.approx(key / 10)
        assert confidence == pytest.approx(sum(share for share, _ in held) / number)
        assert accuracy == pytest.approx(sum(right for _, right in held) / number)


def test_methods_keep_to_the_budget_of_mutual_feedback(analysis, rows):
    *others, whole = analysis.methods
    assert whole.method == "mutual feedback"
    assert all(one.mean_generations <= whole.mean_generations + 1e-9 for one in others)
    by_name = {one.method: one for one in analysis.methods}
    right = [answer_in(one["intuitive"][0]) == "7" for one in rows]
    assert by_name["intuitive reasoner alone"].accuracy == sum(right) / len(rows)
    # Nobody can spend the budget better than to the next problem's extra round.
    majority = by_name["majority of same attempts"]
    assert majority.mean_generations > whole.mean_generations - 3 / len(rows)


def test_pairs_are_counted_on_the_same_questions(analysis, rows):
    found = {row[0]: row for row in figure(analysis, figures.PAIRED).rows}
    ours = {score.problem_id: score.correct for score in analysis.scores}
    one = found["intuitive reasoner alone"]
    first = {row["problem_id"]: answer_in(row["intuitive"][0]) == "7" for row in rows}
    assert one[1] == len(rows)
    assert one[5] == sum(ours[name] and not first[name] for name in ours)
    assert one[6] == sum(first[name] and not ours[name] for name in ours)
    assert one[2] == pytest.approx((one[5] - one[6]) / len(rows))
    console = Console(width=80, record=True)
    print_summary(analysis, console)
    told = console.export_text()
    assert "against each, on the same questions" in told
    # Nothing is cut at 80 columns.
    assert "…" not in told


def test_a_run_that_drew_every_round_is_judged_by_the_papers_rule(rows):
    analysis = analyse(report_data(rows, rule="majority", max_rounds=NUM_ROUNDS))
    assert analysis.summary.rule == "paper"
    assert [one.num_rounds for one in analysis.scores] == [
        solved_by_paper(one, NUM_ROUNDS)[0] for one in rows
    ]


def test_first_rounds_split_into_four_buckets_that_add_up_to_the_table(analysis, rows):
    counts = dict(row[:2] for row in figure(analysis, figures.BUCKET_COUNTS).rows)
    assert list(counts) == list(BUCKETS)
    firsts = Counter(
        (answer_in(one["intuitive"][0]) == "7", answer_in(one["deep"][0]) == "7") for one in rows
    )
    assert counts["both right"] == firsts[True, True]
    assert counts["intuitive only"] == firsts[True, False]
    assert counts["deep only"] == firsts[False, True]
    assert counts["neither right"] == firsts[False, False]
    solved = [solved_by_paper(one, NUM_ROUNDS) for one in rows]
    assert counts["never agreed"] == sum(not met for _, met, *_ in solved)
    assert counts["agreed but wrong"] == sum(met and answer != "7" for _, met, answer, _ in solved)


@pytest.mark.parametrize(
    ("intuitive", "deep", "gold", "buckets"),
    [
        ([7], [7], "7", ("both right",)),
        ([7, 1], [2, 7], "7", ("intuitive only",)),
        ([1, 7], [7, 2], "7", ("deep only",)),
        ([3], [3], "7", ("neither right", "agreed but wrong")),
        ([7, 3], [3, 7], "7", ("intuitive only",)),
        ([1, 2, 1], [4, 5, 6], "7", ("neither right", "never agreed")),
        ([None], [None], "7", ("neither right", "never agreed")),
        ([], [], "7", ("neither right", "never agreed")),
        ([3], [3], None, ()),
        ([3], [4], None, ("never agreed",)),
    ],
)
def test_buckets(intuitive, deep, gold, buckets):
    (case,) = analyse(report_data([row("a", intuitive, deep, gold=gold)], max_rounds=3)).cases
    # The third round of [7, 3] | [3, 7]: sets meet in round 2 at 7 and 3; 7 came first.
    assert case.buckets == buckets


TELLING = "There are 4512 things to count.\nTo find it, add."


@pytest.mark.parametrize(
    ("deep", "knowledge", "gold", "is_bad"),
    [
        ([1, 7], TELLING, "7", True),
        ([7], TELLING, "7", False),
        ([1, 7], "To find it, add.\nTo check it, count.", "7", False),
        ([7], "To find it, add.", "7", False),
        ([1], "To find it, add.", "7", True),
        ([1, 1], TELLING, None, True),
    ],
)
def test_bad_knowledge_is_refused_by_the_gate_and_followed_by_no_right_answer(
    deep, knowledge, gold, is_bad
):
    one = row("a", [7] * len(deep), deep, gold=gold, knowledge=knowledge)
    one["question"] = "How many are left of 4512 things?"
    (case,) = analyse(report_data([one], max_rounds=3)).cases
    assert ("bad knowledge" in case.buckets) == is_bad


def test_knowledge_after_the_decision_or_cut_off():
    one = row("a", [7, 1], [7, 2], knowledge="To find it, add.\nTo check it, count.")
    one["knowledge"][1] = {"text": "x", "finish_reason": "length"}
    analysis = analyse(report_data([one], gate=GateLimits(min_rules=1)))
    (case,) = analysis.cases
    assert case.faults == [(), ("cut-off", "short-rule")]
    assert "bad knowledge" not in case.buckets
    counts = figure(analysis, figures.GATE)
    assert counts.rows == [("cut-off", 0, 1), ("short-rule", 0, 1)]
    shares = dict(figure(analysis, figures.KNOWLEDGE).rows)
    assert shares["passed the gate"] == 0.5
    assert shares["rules a text"] == 1.5
    assert shares["deep attempt right after knowledge that passed"] == 1.0
    assert shares["deep attempt right after knowledge that was refused"] == 0.0


def test_why_an_answer_is_the_label_or_not():
    rows = [row("a", [], [], gold="1/2"), row("b", [3], [3])]
    rows[0] |= {"intuitive": texts(["0.5"]), "deep": texts([r"\frac{1}{2}"])}
    right, wrong = analyse(report_data(rows)).cases
    assert (right.score.correct, right.reason) == (True, "equal as rationals")
    assert (wrong.score.correct, wrong.reason) == (False, "different as rationals")


def test_csv_files_hold_the_rows(analysis):
    for one in figures.figures_of(analysis):
        header, *body = list(csv.reader(io.StringIO(one.to_csv())))
        assert header == list(one.columns)
        assert body == [["" if cell is None else str(cell) for cell in row] for row in one.rows]


def test_a_line_is_drawn_where_the_numbers_are(analysis):
    found = figure(analysis, figures.ACCURACY_OVER_N)
    line = re.search(r'<polyline class="s s0" points="([^"]+)"', draw(found))
    places = [tuple(map(float, place.split(","))) for place in line[1].split()]
    accuracies = found.column("accuracy")
    assert len(places) == len(accuracies)
    # On a linear axis places differ as values do.
    (_, first), *_, (_, last) = places
    scale = (last - first) / (accuracies[-1] - accuracies[0])
    for (_, down), accuracy in zip(places, accuracies, strict=True):
        assert down == pytest.approx(first + scale * (accuracy - accuracies[0]), abs=0.11)


def test_bars_are_as_high_as_their_counts(analysis):
    found = figure(analysis, figures.ROUNDS)
    bars = re.findall(
        r'<rect class="f(\d)" x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"',
        draw(found),
    )
    heights = {}
    for kind, left, width, height in bars:
        if width != "26":  # those of the legend
            heights.setdefault(float(left), {})[int(kind)] = float(height)
    shown = [heights[left] for left in sorted(heights)]
    scale = max(max(one.values()) for one in shown) / max(max(row[1:3]) for row in found.rows)
    for one, (_, *counts) in zip(shown, found.rows, strict=True):
        for kind, count in enumerate(counts[:2]):
            assert one.get(kind, 0.0) == pytest.approx(scale * count, abs=0.2)


def losses():
    return [
        LossPoint(step=step, loss=2 / step, learning_rate=1e-3, tokens_per_s=100, num_tokens=50)
        for step in range(1, 601)
    ]


def test_losses_and_costs_are_those_of_the_records():
    data = report_data(
        [row("a", [7], [7])],
        loss_curves={role: losses() for role in Role},
        stages=[StageCost(stage="knowledge", seconds=3.5, spent=0.25, currency="USD")],
    )
    analysis = analyse(data)
    loss = figure(analysis, figures.LOSS)
    assert loss.rows[:2] == [
        ("intuitive_reasoner", 1, 2.0, None, 1e-3, 100),
        ("intuitive_reasoner", 2, 1.0, None, 1e-3, 100),
    ]
    assert len(loss.rows) == 1800
    svg = draw(loss)
    lines = re.findall(r'<polyline class="s s\d" points="([^"]+)"', svg)
    assert sorted(len(line.split()) for line in lines) == [2, 2, 2, 200, 200, 200]
    assert figure(analysis, figures.STAGES).rows == [("knowledge", 3.5, None, None, 0.25, "USD")]
    first, last = loss_summary(losses())
    assert first > last


def test_the_terminal_shows_model_text_as_it_is_within_80_columns():
    rows = [
        row("at once", [7], [7]),
        row("later", [1, 7], [7, 2]),
        row("wrong", [3], [3], family="new"),
        row("never", [1, 2, 1], [4, 5, 6]),
    ]
    for one in rows:
        one["question"] = f"How many? {ATTACK}"
    base = [
        {"problem_id": name, "gold": "7", "text": f"--> {answer} END", "finish_reason": "stop"}
        for name, answer in (("at once", 7), ("later", 1), ("wrong", 2), ("never", 3))
    ]
    data = report_data(rows, max_rounds=3, base_answers=base, unseen_families=frozenset({"new"}))
    analysis = analyse(data)
    accuracy = {one.method: one.accuracy for one in analysis.methods if one.is_part}
    assert accuracy == {
        "base model alone": 0.25,
        "intuitive reasoner alone": 0.25,
        "knowledge -> deep reasoner": 0.5,
        "majority of same attempts": 0.5,
        "mutual feedback": 0.5,
    }
    whole = analysis.methods[-1]
    assert (whole.accuracy_seen, whole.accuracy_unseen) == (2 / 3, 0.0)
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(analysis, console)
    text = console.export_text()
    assert ATTACK in text
    assert "…" not in text
    assert "First they disagree, then they agree" in text
    line = next(line for line in text.splitlines() if "mutual feedback" in line)
    assert re.findall(r"[\d.]+", line) == ["50.0", "15.0", "85.0", "75", "1.75", "5.25"]

"""The numbers behind each plot, as rows of a table: what the CSV files hold and the plots draw.

    for figure in figures_of(analysis): figure.name, figure.columns, figure.rows

Every number is a replay's or a record's; a cell is None where there is none.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lorid.method.calibration import calibrate
from lorid.method.comparison import figures_by_bound
from lorid.method.replay import score
from lorid.method.scoring import wilson_interval
from lorid.method.stopping import RULES
from lorid.report.analysis import Analysis
from lorid.report.buckets import BUCKETS

Cell = str | int | float | None
METHODS = "methods"
PAIRED = "paired"
ACCURACY_OVER_N = "accuracy-over-n"
ACCURACY_OVER_GENERATIONS = "accuracy-over-generations"
ROUNDS = "rounds"
CALIBRATION = "calibration"
LOSS = "loss"
KNOWLEDGE = "knowledge"
GATE = "gate"
STAGES = "stages"
BUCKET_COUNTS = "buckets"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One table of numbers; `name` is the stem of its files."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def column(self, name: str) -> list[Cell]:
        """The cells of one column."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]

    def to_csv(self) -> str:
        """As a CSV file, RFC 4180 but for plain line feeds; None is an empty cell."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return written.getvalue()


def figures_of(analysis: Analysis) -> list[Figure]:
    """All figures that the run has numbers for."""
    figures = [make(analysis) for make in _FIGURES]
    return [figure for figure in figures if figure.rows]


def methods(analysis: Analysis) -> Figure:
    """The table of methods at an equal budget."""
    columns = (
        "method", "problems", "accuracy", "low", "high", "coverage", "mean_rounds",
        "mean_generations", "max_rounds", "within_budget", "brier", "accuracy_seen",
        "accuracy_unseen",
    )  # fmt: skip
    rows = [
        (
            row.method, row.num_problems, row.accuracy, *row.interval, row.coverage,
            row.mean_rounds, row.mean_generations, row.max_rounds, row.within_budget, row.brier,
            row.accuracy_seen, row.accuracy_unseen,
        )
        for row in analysis.methods
    ]  # fmt: skip
    return Figure(name=METHODS, columns=columns, rows=rows)


def paired(analysis: Analysis) -> Figure:
    """Mutual feedback against each other method, and other evaluations, on the same questions."""
    columns = (
        "against", "problems", "difference", "low", "high", "only_ours", "only_theirs", "both",
        "p_value",
    )  # fmt: skip
    rows = [
        (
            name, one.num_problems, one.difference, *one.interval, one.num_only_a, one.num_only_b,
            one.num_both, one.p_value,
        )
        for name, one in analysis.pairs
    ]  # fmt: skip
    return Figure(name=PAIRED, columns=columns, rows=rows)


def accuracy_over_n(analysis: Analysis) -> Figure:
    """Accuracy, with Wilson's interval, and coverage at every bound on the rounds."""
    columns = (
        "max_rounds", "accuracy", "low", "high", "coverage", "mean_rounds", "mean_generations",
    )  # fmt: skip
    num_labelled = analysis.summary.num_labelled
    rows: list[tuple[Cell, ...]] = []
    for one in figures_by_bound(analysis.judged, policy=analysis.data.policy()):
        low, high = None, None
        if one.accuracy is not None:
            low, high = wilson_interval(round(one.accuracy * num_labelled), num_labelled)
        rows.append(
            (
                one.max_rounds, one.accuracy, low, high, one.coverage, one.mean_rounds,
                one.mean_generations,
            )
        )  # fmt: skip
    return Figure(name=ACCURACY_OVER_N, columns=columns, rows=rows)


def accuracy_over_generations(analysis: Analysis) -> Figure:
    """Accuracy and mean generations of every rule at every bound."""
    rows = [
        (rule, one.max_rounds, one.mean_generations, one.accuracy, one.coverage)
        for rule in RULES
        for one in figures_by_bound(analysis.judged, policy=analysis.data.policy(rule))
        if one.accuracy is not None
    ]
    columns = ("rule", "max_rounds", "mean_generations", "accuracy", "coverage")
    return Figure(name=ACCURACY_OVER_GENERATIONS, columns=columns, rows=rows)


def rounds(analysis: Analysis) -> Figure:
    """How many questions took how many rounds, by how they ended."""
    counts: Counter[tuple[int, str]] = Counter()
    for one in analysis.scores:
        is_right = {True: "right", False: "not right", None: "unlabelled"}[one.correct]
        counts[one.num_rounds, is_right] += 1
    rows = [
        (number, *(counts[number, name] for name in ("right", "not right", "unlabelled")))
        for number in sorted({number for number, _ in counts})
    ]
    return Figure(name=ROUNDS, columns=("rounds", "right", "not_right", "unlabelled"), rows=rows)


def calibration(analysis: Analysis) -> Figure:
    """Reliability of the leading rule's confidence, and of the posterior of `bayes`."""
    rows: list[tuple[Cell, ...]] = []
    for rule in dict.fromkeys((analysis.data.lead_rule, "bayes")):
        policy = analysis.data.policy(rule)
        found = calibrate([score(item, policy=policy) for item in analysis.judged])
        rows += [
            (rule, one.low, one.high, one.num_answers, one.mean_confidence, one.accuracy)
            for one in found.bins
        ]
    columns = ("rule", "low", "high", "answers", "mean_confidence", "accuracy")
    return Figure(name=CALIBRATION, columns=columns, rows=rows)


def loss(analysis: Analysis) -> Figure:
    """Every optimizer step of every role."""
    rows = [
        (str(role), one.step, one.loss, one.validation_loss, one.learning_rate, one.tokens_per_s)
        for role, curve in analysis.data.loss_curves.items()
        for one in curve
    ]
    columns = ("role", "step", "loss", "validation_loss", "learning_rate", "tokens_per_s")
    return Figure(name=LOSS, columns=columns, rows=rows)


def gate(analysis: Analysis) -> Figure:
    """What the gate caught, by its rules: in the teacher's answers, and in the student's texts.

    The teacher's are counted where knowledge was made, also where a later answer was taken; the
    student's are all texts logged.
    """
    caught = dict[str, int](analysis.data.knowledge_details.get("caught") or {})
    student = Counter(name for case in analysis.cases for names in case.faults for name in names)
    names = sorted({*caught, *student}, key=lambda name: (-student[name], name))
    rows = [(name, caught.get(name, 0), student[name]) for name in names]
    return Figure(name=GATE, columns=("caught_by", "teacher", "student"), rows=rows)


def knowledge(analysis: Analysis) -> Figure:
    """Counts of the student's knowledge, and how often the deep attempt after it is right."""
    pairs = [
        (names, case.judged.is_right(answer))
        for case in analysis.cases
        for names, answer in zip(case.faults, case.judged.deep, strict=False)
    ]
    texts = [text.text for case in analysis.cases for text in case.attempts.knowledge]
    if not texts:
        return Figure(name=KNOWLEDGE, columns=("figure", "value"), rows=[])
    num_rules = sum(bool(line.strip()) for text in texts for line in text.split("\n"))
    num_passed = sum(not names for case in analysis.cases for names in case.faults)
    rows: list[tuple[Cell, ...]] = [
        ("knowledge texts of the student", len(texts)),
        ("different ones", len(set(texts))),
        ("rules a text", num_rules / len(texts)),
        ("characters a text", sum(map(len, texts)) / len(texts)),
        ("passed the gate", num_passed / len(texts)),
        ("deep attempt right after knowledge that passed", _share(pairs, has_passed=True)),
        ("deep attempt right after knowledge that was refused", _share(pairs, has_passed=False)),
    ]
    return Figure(name=KNOWLEDGE, columns=("figure", "value"), rows=rows)


def _share(
    pairs: Sequence[tuple[tuple[str, ...], bool | None]], *, has_passed: bool
) -> float | None:
    right = [is_right for names, is_right in pairs if (not names) == has_passed]
    labelled = [one for one in right if one is not None]
    return sum(labelled) / len(labelled) if labelled else None


def stages(analysis: Analysis) -> Figure:
    """Time and cost of every stage."""
    rows = [
        (one.stage, one.seconds, one.num_texts, one.num_tokens, one.spent, one.currency)
        for one in analysis.data.stages
    ]
    columns = ("stage", "seconds", "texts", "tokens", "spent", "currency")
    return Figure(name=STAGES, columns=columns, rows=rows)


def bucket_counts(analysis: Analysis) -> Figure:
    """How many questions each bucket of the explorer holds."""
    counts = Counter(name for case in analysis.cases for name in case.buckets)
    rows = [(name, counts[name], meaning) for name, meaning in BUCKETS.items()]
    return Figure(name=BUCKET_COUNTS, columns=("bucket", "questions", "meaning"), rows=rows)


_FIGURES: tuple[Callable[[Analysis], Figure], ...] = (
    methods, paired, accuracy_over_n, accuracy_over_generations, rounds, calibration, loss,
    knowledge, gate, stages, bucket_counts,
)  # fmt: skip

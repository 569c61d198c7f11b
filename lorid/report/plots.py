"""Each plot of the report, drawn from its figure's rows and from nothing else.

svg = draw(figure)        # None for a figure that is a table
"""

from collections.abc import Callable, Mapping
from typing import cast

from lorid.method.stopping import ORACLE
from lorid.report import figures
from lorid.report.figures import Cell, Figure
from lorid.report.svg import Axis, Bars, Series, bar_chart, line_chart, lying_bars

MAX_POINTS = 240
MAX_SHOWN_LOSS = 2.0


def draw(figure: Figure) -> str | None:
    """The figure as SVG, if it is one that is drawn."""
    plot = _PLOTS.get(figure.name)
    return plot(figure) if plot else None


def _numbers(figure: Figure, column: str) -> list[float]:
    return [float(cast("float", cell)) for cell in figure.column(column) if cell is not None]


def _pairs(figure: Figure, x: str, y: str, *, of: str = "") -> list[tuple[float, float]]:
    """The points of two columns, of the rows that begin with `of`, where both have a number."""
    across, down = figure.columns.index(x), figure.columns.index(y)
    return [
        (float(cast("float", row[across])), float(cast("float", row[down])))
        for row in figure.rows
        if (not of or row[0] == of) and row[across] is not None and row[down] is not None
    ]


def _accuracy_over_n(figure: Figure) -> str:
    accuracy, coverage = (_pairs(figure, "max_rounds", name) for name in ("accuracy", "coverage"))
    band = [
        (at, low, high)
        for (at, low), (_, high) in zip(
            _pairs(figure, "max_rounds", "low"), _pairs(figure, "max_rounds", "high"), strict=True
        )
    ]
    low = min(value for _, value in [*accuracy, *coverage, *((at, low) for at, low, _ in band)])
    return line_chart(
        "Accuracy and coverage over the bound N on the rounds",
        x=Axis(
            label="N: rounds at most",
            low=1,
            high=max(2, *_numbers(figure, "max_rounds")),
            is_whole=True,
        ),
        y=_shares("share of questions", low),
        series=[
            Series(name="accuracy, 95% band", points=accuracy, look=0, band=band),
            Series(name="coverage", points=coverage, look=1),
        ],
    )


def _shares(label: str, low: float) -> Axis:
    """An axis of shares up to 1 that begins at a tenth below what is shown."""
    return Axis(label=label, low=max(0.0, int(low * 10) / 10), high=1.0, is_share=True)


def _accuracy_over_generations(figure: Figure) -> str:
    rules = list(dict.fromkeys(str(cell) for cell in figure.column("rule")))
    # Where nothing was drawn nothing was spent, which no logarithm shows.
    spent = [number for number in _numbers(figure, "mean_generations") if number > 0]
    low, high = 0.9 * min(spent, default=1.0), 1.1 * max([2.0, *spent])
    return line_chart(
        "Accuracy over the mean generations a question, for every rule",
        x=Axis(label="generations a question", low=low, high=high, is_log=True),
        y=_shares("accuracy", min(_numbers(figure, "accuracy"))),
        series=[
            Series(
                name=f"{rule} (sees label)" if rule == ORACLE else rule,
                points=_pairs(figure, "mean_generations", "accuracy", of=rule),
                look=look,
            )
            for look, rule in enumerate(rules)
        ],
    )


def _rounds(figure: Figure) -> str:
    counts = {int(cast("int", row[0])): row[1:] for row in figure.rows}
    every = range(min(counts), max(counts) + 1)
    none: tuple[Cell, ...] = (0, 0, 0)
    stacks = [[float(cast("int", n)) for n in counts.get(number, none)] for number in every]
    names = ("right", "not right", "without a label")
    shown = [kind for kind in range(3) if any(stack[kind] for stack in stacks)]
    return bar_chart(
        "Rounds until the rule stopped",
        x_label="rounds",
        y_label="questions",
        bars=Bars(
            names=[names[kind] for kind in shown],
            labels=[str(number) for number in every],
            values=[[stack[kind] for kind in shown] for stack in stacks],
        ),
    )


def _calibration(figure: Figure) -> str:
    rules = list(dict.fromkeys(str(cell) for cell in figure.column("rule")))
    counts = _numbers(figure, "answers")
    sizes = [3 + 7 * (count / max(counts)) ** 0.5 for count in counts]
    names = {"bayes": "bayes: a posterior"}
    return line_chart(
        "Confidence against the share that is right; larger marks hold more answers",
        x=Axis(label="mean confidence", low=0, high=1, is_share=True),
        y=Axis(label="share that is right", low=0, high=1, is_share=True),
        has_diagonal=True,
        series=[
            Series(
                name=names.get(rule, f"{rule}: a share of votes"),
                points=_pairs(figure, "mean_confidence", "accuracy", of=rule),
                sizes=[s for s, row in zip(sizes, figure.rows, strict=True) if row[0] == rule],
                look=look,
            )
            for look, rule in enumerate(rules)
        ],
    )


def _loss(figure: Figure) -> str:
    roles = list(dict.fromkeys(str(cell) for cell in figure.column("role")))
    curves = {role: _thinned(_pairs(figure, "step", "loss", of=role)) for role in roles}
    held_out = {role: _pairs(figure, "step", "validation_loss", of=role) for role in roles}
    top = max(value for curve in (*curves.values(), *held_out.values()) for _, value in curve)
    lines = [
        Series(name=role.replace("_", " "), points=curve, look=look, has_markers=False)
        for look, (role, curve) in enumerate(curves.items())
    ]
    lines += [
        Series(name=f"{role.replace('_', ' ')}, held out", points=points, look=3 + look)
        for look, (role, points) in enumerate(held_out.items())
        if points
    ]
    return line_chart(
        "Training loss of the three roles",
        x=Axis(label="optimizer step", low=0, high=max(_numbers(figure, "step")), is_whole=True),
        y=Axis(label="loss, nats a token", low=0, high=min(MAX_SHOWN_LOSS, top * 1.05 or 1)),
        series=lines,
    )


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS of them: means of neighbours, at the last one's place."""
    stride = -(-len(points) // MAX_POINTS) or 1
    chunks = [points[start : start + stride] for start in range(0, len(points), stride)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]


def _gate(figure: Figure) -> str:
    return lying_bars(
        "What the quality gate caught",
        x_label="texts caught",
        bars=Bars(
            names=("teacher's answers", "student's knowledge"),
            labels=[str(cell) for cell in figure.column("caught_by")],
            values=list(zip(_numbers(figure, "teacher"), _numbers(figure, "student"), strict=True)),
        ),
    )


def _stages(figure: Figure) -> str:
    return lying_bars(
        "Time of every stage",
        x_label="seconds",
        bars=Bars(
            names=("seconds",),
            labels=[str(cell) for cell in figure.column("stage")],
            values=[[seconds] for seconds in _numbers(figure, "seconds")],
        ),
    )


_PLOTS: Mapping[str, Callable[[Figure], str]] = {
    figures.ACCURACY_OVER_N: _accuracy_over_n,
    figures.ACCURACY_OVER_GENERATIONS: _accuracy_over_generations,
    figures.ROUNDS: _rounds,
    figures.CALIBRATION: _calibration,
    figures.LOSS: _loss,
    figures.GATE: _gate,
    figures.STAGES: _stages,
}

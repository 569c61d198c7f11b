"""The report as one HTML file: no scripts, no outside hosts; every text from a model is escaped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lorid.method.equivalence import AnswerChecker
from lorid.method.replay import score
from lorid.method.roles import Role
from lorid.method.scoring import summarize
from lorid.report.data import (
    REFERENCE_GENERATIONS,
    LossPoint,
    ReportData,
    judged_attempts,
    loss_summary,
    parsed_attempts,
    summarize_methods,
)
from lorid.report.stories import choose_stories

CHART_WIDTH, CHART_HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 28
MAX_POINTS = 240
MAX_SHOWN_LOSS = 2.0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One role's loss as an SVG polyline."""

    role: Role
    points: str
    last_loss: float


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of the rounds histogram, in SVG units."""

    label: int
    count: int
    x: float
    y: float
    width: float
    height: float


def write_html(data: ReportData, path: Path) -> None:
    """Write the report to `path`."""
    path.write_text(render_html(data), encoding="utf-8")


def render_html(data: ReportData) -> str:
    """The report's text."""
    environment = Environment(
        loader=PackageLoader("lorid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = data.policy()
    attempts = parsed_attempts(data)
    with AnswerChecker() as checker:
        methods = summarize_methods(data, checker)
        scores = [score(item, policy=policy) for item in judged_attempts(attempts, checker)]
    stories = choose_stories(attempts, scores)
    summary = summarize(scores, policy=policy)
    return environment.get_template("report.html.j2").render(
        data=data,
        methods=methods,
        summary=summary,
        stories=stories,
        curves=_curves(data.loss_curves),
        ticks=_loss_ticks(data.loss_curves),
        bars=_bars(summary.rounds_histogram),
        reference_generations=REFERENCE_GENERATIONS,
        chart={"width": CHART_WIDTH, "height": CHART_HEIGHT, "left": LEFT, "bottom": BOTTOM},
    )


def _top_loss(curves: Mapping[Role, Sequence[LossPoint]]) -> float:
    losses = [point.loss for curve in curves.values() for point in curve]
    return min(MAX_SHOWN_LOSS, max(losses, default=1.0))


def _curves(curves: Mapping[Role, Sequence[LossPoint]]) -> list[Curve]:
    top = _top_loss(curves)
    return [
        Curve(role=role, points=_polyline(curve, top=top), last_loss=loss_summary(curve)[1])
        for role, curve in curves.items()
        if curve
    ]


def _polyline(curve: Sequence[LossPoint], *, top: float) -> str:
    stride = max(1, len(curve) // MAX_POINTS)
    last = max(1, curve[-1].step)
    points: list[str] = []
    for start in range(0, len(curve), stride):
        chunk = curve[start : start + stride]
        loss = sum(point.loss for point in chunk) / len(chunk)
        x = LEFT + (CHART_WIDTH - LEFT - RIGHT) * chunk[-1].step / last
        y = TOP + (CHART_HEIGHT - TOP - BOTTOM) * (1 - min(loss, top) / top)
        points.append(f"{x:.1f},{y:.1f}")
    return " ".join(points)


def _loss_ticks(curves: Mapping[Role, Sequence[LossPoint]]) -> list[tuple[float, str]]:
    top = _top_loss(curves)
    height = CHART_HEIGHT - TOP - BOTTOM
    return [(TOP + height * (1 - share), f"{top * share:.2f}") for share in (0, 0.25, 0.5, 0.75, 1)]


def _bars(histogram: Mapping[int, int]) -> list[Bar]:
    if not histogram:
        return []
    most, last = max(histogram.values()), max(histogram)
    width = (CHART_WIDTH - LEFT - RIGHT) / last
    height = CHART_HEIGHT - TOP - BOTTOM - 14
    return [
        Bar(
            label=rounds,
            count=count,
            x=LEFT + (rounds - 1) * width,
            y=TOP + 14 + height * (1 - count / most),
            width=width * 0.8,
            height=height * count / most,
        )
        for rounds, count in histogram.items()
    ]

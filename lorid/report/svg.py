"""Charts as SVG text, by hand: lines, bars, and points, with axes that say what they are.

    line_chart(title, x=Axis(label="rounds", low=1, high=20), y=SHARES, series=[Series(...)])

Series differ by colour (Okabe and Ito's, safe for the colour-blind), by dashes and by markers, so
that grey print tells them apart. Colours are attributes, which a page's CSS may replace; as a file
of its own a chart is dark on white.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 16, 50
LEGEND_ROW, LEGEND_LEFT = 18, 16
INK, SOFT, GRID = "#1d2430", "#5b6472", "#dcdad3"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#222222", "#cc79a7", "#b07d00", "#56b4e9")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "", "5 5", "1 4")
MARKERS = "osdt+xv"
FILLS = ("#0072b2", "#f2c28b", "#e3e3e3")
MAX_MARKERS = 24


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A scale from `low` to `high`, both above 0 on a logarithmic one; `is_whole` counts things."""

    label: str
    low: float
    high: float
    is_log: bool = False
    is_share: bool = False
    is_whole: bool = False

    def share_of(self, value: float) -> float:
        """Where a value lies, 0 to 1; beyond the ends it is held there."""
        low, high, value = self.low, self.high, max(self.low, min(self.high, value))
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list[float]:
        """Round values for the grid: at most eight."""
        if self.is_log:
            found = [b * 10.0**e for e in range(-3, 7) for b in (1, 2, 5)]
            return [value for value in found if self.low <= value <= self.high * 1.0001]
        step = max(_step((self.high - self.low) / 5), 1.0 if self.is_whole else 0.0)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def text_of(self, value: float) -> str:
        """A tick's label."""
        return f"{100 * value:.0f}%" if self.is_share else f"{value:.10g}"


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one line; `band` holds (x, low, high), `sizes` radii where points are no line."""

    name: str
    points: Sequence[tuple[float, float]]
    look: int
    band: Sequence[tuple[float, float, float]] = ()
    sizes: Sequence[float] = ()
    has_markers: bool = True


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One stack a label: `values` holds, for each label, a number for each of `names`."""

    names: Sequence[str]
    labels: Sequence[str]
    values: Sequence[Sequence[float]] = field(default_factory=list[Sequence[float]])


def line_chart(
    title: str, *, x: Axis, y: Axis, series: Sequence[Series], has_diagonal: bool = False
) -> str:
    """Lines over two axes, with a legend below where there is more than one."""
    series = [one for one in series if one.points]
    body = [*_axes(x, y)]
    if has_diagonal:
        body.append(
            f'<line class="soft" x1="{_x(x, x.low)}" y1="{_y(y, y.low)}" x2="{_x(x, x.high)}" '
            f'y2="{_y(y, y.high)}" stroke="{SOFT}" stroke-dasharray="1 3"/>'
        )
    for one in series:
        body += _band(one, x, y)
    for one in series:
        body += _line(one, x, y)
    return _document(title, body, legend=[(one.name, one.look, one.has_markers) for one in series])


def bar_chart(title: str, *, x_label: str, y_label: str, bars: Bars) -> str:
    """Standing stacks, one a label, with their sum on top."""
    most = max((sum(stack) for stack in bars.values), default=1) or 1
    y = Axis(label=y_label, low=0, high=most * 1.08, is_whole=True)
    x = Axis(label=x_label, low=0, high=max(1, len(bars.labels)))
    width = (WIDTH - LEFT - RIGHT) / max(1, len(bars.labels))
    # Labels of neighbours must not touch: a digit is about seven wide.
    stride = max(1, math.ceil(max(map(len, bars.labels), default=1) * 7.5 / width))
    body = [*_axes(x, y, has_x_ticks=False)]
    for index, (label, stack) in enumerate(zip(bars.labels, bars.values, strict=True)):
        left, middle, below = LEFT + (index + 0.1) * width, LEFT + (index + 0.5) * width, 0.0
        for kind, value in enumerate(stack):
            top, height = _y(y, below + value), _y(y, below) - _y(y, below + value)
            below += value
            if value:
                body.append(
                    f'<rect class="f{kind}" x="{left:.1f}" y="{top:.1f}" '
                    f'width="{width * 0.8:.1f}" height="{height:.1f}" fill="{FILLS[kind]}" '
                    f'stroke="{INK}" stroke-width=".6"/>'
                )
        if below and len(bars.labels) <= 24:
            body.append(_text(f"{below:.10g}", x=middle, y=_y(y, below) - 4))
        if index % stride == 0:
            body.append(_text(label, x=middle, y=HEIGHT - BOTTOM + 16))
    names = bars.names if len(bars.names) > 1 else ()
    return _document(
        title, body, legend=[(n, k, False) for k, n in enumerate(names)], are_bars=True
    )


def lying_bars(title: str, *, x_label: str, bars: Bars) -> str:
    """Bars that lie, for labels that are words; groups of `names` a label."""
    most = max((value for group in bars.values for value in group), default=1) or 1
    left, thick, gap = 204, 13, 9
    step = thick * max(1, len(bars.names)) + gap
    bottom = TOP + step * len(bars.labels)
    scale = (WIDTH - left - 56) / most
    body: list[str] = []
    for index, (label, group) in enumerate(zip(bars.labels, bars.values, strict=True)):
        top = TOP + index * step
        middle = top + (step - gap) / 2 + 4
        body.append(_text(label, x=left - 8, y=middle, anchor="end", is_strong=True))
        for kind, value in enumerate(group):
            y = top + kind * thick
            body.append(
                f'<rect class="f{kind}" x="{left}" y="{y:.1f}" width="{value * scale:.1f}" '
                f'height="{thick - 2}" fill="{FILLS[kind]}" stroke="{INK}" stroke-width=".6"/>'
            )
            shown = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
            body.append(_text(shown, x=left + value * scale + 5, y=y + 10, anchor="start"))
    body.append(
        f'<line class="axis" x1="{left}" x2="{left}" y1="{TOP - 4}" y2="{bottom - gap + 4}" '
        f'stroke="{INK}"/>'
    )
    body.append(_text(x_label, x=(left + WIDTH) / 2, y=bottom + 14, is_strong=True))
    names = bars.names if len(bars.names) > 1 else ()
    legend = [(name, kind, False) for kind, name in enumerate(names)]
    return _document(title, body, legend=legend, are_bars=True, height=bottom + 22)


def _step(rough: float) -> float:
    if rough <= 0:
        return 1.0
    base = 10.0 ** math.floor(math.log10(rough))
    return next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough * 0.999)


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * axis.share_of(value), 1)


def _y(axis: Axis, value: float) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis.share_of(value), 1)


def _text(text: str, *, x: float, y: float, anchor: str = "middle", is_strong: bool = False) -> str:
    kind, colour = ("label", INK) if is_strong else ("tick", SOFT)
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _axes(x: Axis, y: Axis, *, has_x_ticks: bool = True) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in y.ticks():
        at = _y(y, value)
        yield (f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{at}" y2="{at}" stroke="{GRID}"/>')
        yield _text(y.text_of(value), x=LEFT - 6, y=at + 4, anchor="end")
    for value in x.ticks() if has_x_ticks else ():
        at = _x(x, value)
        yield f'<path class="axis" d="M{at} {bottom}v4" stroke="{INK}"/>'
        yield _text(x.text_of(value), x=at, y=bottom + 17)
    yield (f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="{INK}"/>')
    yield _text(x.label, x=(LEFT + right) / 2, y=bottom + 36, is_strong=True)
    middle = (TOP + bottom) / 2
    yield (
        f'<text class="label" x="14" y="{middle}" text-anchor="middle" fill="{INK}" '
        f'transform="rotate(-90 14 {middle})">{escape(y.label)}</text>'
    )


def _band(one: Series, x: Axis, y: Axis) -> Iterator[str]:
    if one.band:
        upper = [f"{_x(x, at)},{_y(y, high)}" for at, _, high in one.band]
        lower = [f"{_x(x, at)},{_y(y, low)}" for at, low, _ in reversed(one.band)]
        yield (
            f'<polygon class="f s{one.look}" points="{" ".join(upper + lower)}" '
            f'fill="{COLOURS[one.look]}" fill-opacity=".15"/>'
        )


def _line(one: Series, x: Axis, y: Axis) -> Iterator[str]:
    places = [(_x(x, at), _y(y, value)) for at, value in one.points]
    if len(places) > 1 and not one.sizes:
        yield _polyline(places, one.look)
    if one.has_markers:
        stride = max(1, math.ceil(len(places) / MAX_MARKERS))
        for index, (across, down) in enumerate(places):
            if index % stride == 0 or index == len(places) - 1:
                size = one.sizes[index] if one.sizes else 3.4
                yield _marker(across, down, look=one.look, size=size)


def _polyline(places: Sequence[tuple[float, float]], look: int) -> str:
    points = " ".join(f"{across},{down}" for across, down in places)
    dashes = f' stroke-dasharray="{DASHES[look]}"' if DASHES[look] else ""
    return (
        f'<polyline class="s s{look}" points="{points}" fill="none" stroke="{COLOURS[look]}" '
        f'stroke-width="1.8"{dashes}/>'
    )


def _marker(x: float, y: float, *, look: int, size: float) -> str:
    """A circle, square, diamond, triangle, plus, cross or fallen triangle of one radius."""
    r = round(size, 1)
    shapes = {
        "o": f"M{x - r} {y}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        "s": f"M{x - r} {y - r}h{2 * r}v{2 * r}h{-2 * r}z",
        "d": f"M{x} {y - 1.3 * r:.1f}l{r} {1.3 * r:.1f}l{-r} {1.3 * r:.1f}l{-r} {-1.3 * r:.1f}z",
        "t": f"M{x} {y - r}l{r} {2 * r}h{-2 * r}z",
        "+": f"M{x - r} {y}h{2 * r}M{x} {y - r}v{2 * r}",
        "x": f"M{x - r} {y - r}l{2 * r} {2 * r}M{x - r} {y + r}l{2 * r} {-2 * r}",
        "v": f"M{x} {y + r}l{r} {-2 * r}h{-2 * r}z",
    }
    return (
        f'<path class="m s{look}" d="{shapes[MARKERS[look]]}" fill="{COLOURS[look]}" '
        f'fill-opacity=".75" stroke="{COLOURS[look]}"/>'
    )


def _document(
    title: str,
    body: Sequence[str],
    *,
    legend: Sequence[tuple[str, int, bool]],
    are_bars: bool = False,
    height: float = HEIGHT,
) -> str:
    rows = [*_legend(legend, top=height, are_bars=are_bars)] if len(legend) > 1 else []
    num_rows = math.ceil(len(legend) / 2) if len(legend) > 1 else 0
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} '
        f'{height + LEGEND_ROW * num_rows:g}" role="img" font-family="sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>{''.join([*body, *rows])}</svg>"
    )


def _legend(
    legend: Sequence[tuple[str, int, bool]], *, top: float, are_bars: bool
) -> Iterator[str]:
    for index, (name, look, has_marker) in enumerate(legend):
        x = LEGEND_LEFT + (index % 2) * (WIDTH - LEGEND_LEFT) / 2
        y = top + 8 + LEGEND_ROW * (index // 2)
        if are_bars:
            yield (
                f'<rect class="f{look}" x="{x}" y="{y - 6}" width="26" height="11" '
                f'fill="{FILLS[look]}" stroke="{INK}" stroke-width=".6"/>'
            )
        else:
            yield _polyline([(x, y), (x + 26, y)], look)
            if has_marker:
                yield _marker(x + 13, y, look=look, size=3.4)
        yield _text(name, x=x + 32, y=y + 4, anchor="start", is_strong=True)

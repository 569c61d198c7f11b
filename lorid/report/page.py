"""The report as one HTML file: no outside hosts, and every text from a model stays text.

    html = render(analysis, figures)

Scripts and styles stand in the file, each allowed by its hash and nothing else. The explorer's data
are inert: compressed, in elements that no browser runs.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lorid.report import figures as names
from lorid.report.analysis import Analysis
from lorid.report.buckets import BUCKETS
from lorid.report.data import REFERENCE_GENERATIONS
from lorid.report.explorer import QUESTIONS_A_PAGE, pack
from lorid.report.figures import Cell, Figure
from lorid.report.plots import draw

MAX_SHOWN_ROWS = 60
NONE = "\N{EN DASH}"
# In this order: a file's imports are of files before it.
SCRIPTS = (
    "web/vendor/temml.min.js",
    "web/dom.js",
    "web/mathematics.js",
    "report/templates/packed.js",
    "report/templates/question.js",
    "report/templates/explorer.js",
)
STYLES = ("web/page.css", "report/templates/report.css")
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A figure on the page: its plot, its numbers where they are few."""

    name: str
    svg: Markup | None
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(analysis: Analysis, figures: Sequence[Figure]) -> str:
    """The report's text."""
    environment = Environment(
        loader=PackageLoader("lorid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    packed = pack(analysis)
    script, style = _bundled(SCRIPTS), _bundled(STYLES)
    data = analysis.data
    return environment.get_template("report.html.j2").render(
        data=data,
        summary=analysis.summary,
        methods=analysis.methods,
        pairs=analysis.pairs,
        shown={figure.name: _shown(figure) for figure in figures},
        names=names,
        policy=_policy(script, style),
        script=Markup(script),
        style=Markup(style),
        packed=packed,
        blocks={name: inert_json(block) for name, block in packed.blocks.items()},
        facts=inert_json(_facts(analysis)),
        buckets=BUCKETS,
        counts=Counter(name for case in analysis.cases for name in case.buckets),
        brier=_brier(analysis),
        percent=percent,
        reference_generations=REFERENCE_GENERATIONS,
    )


def inert_json(value: object) -> Markup:
    """JSON that may stand in a script element: no `<` ends it, whatever a text holds."""
    return Markup(json.dumps(value).replace("<", "\\u003c"))


def percent(share: float | None) -> str:
    """A share as it is shown, a dash for none."""
    return NONE if share is None else f"{100 * share:.1f}%"


def _facts(analysis: Analysis) -> Mapping[str, object]:
    return {
        "rule": analysis.data.lead_rule,
        "page": QUESTIONS_A_PAGE,
        "buckets": list(BUCKETS),
    }


def _brier(analysis: Analysis) -> float | None:
    return next(row.brier for row in reversed(analysis.methods))


def _bundled(paths: Sequence[str]) -> str:
    """Files of the package as one text: modules that import one another alone need only order."""
    package = files("lorid")
    texts = [package.joinpath(path).read_text(encoding="utf-8") for path in paths]
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", text)) for text in texts)


def _policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _shown(figure: Figure) -> Shown:
    svg = draw(figure)
    few = figure.rows if len(figure.rows) <= MAX_SHOWN_ROWS else ()
    return Shown(
        name=figure.name,
        # Made by lorid.report.svg, which escapes what it is given.
        svg=None if svg is None else Markup(svg),
        columns=[column.replace("_", " ") for column in figure.columns],
        rows=[[_cell(cell) for cell in row] for row in few],
    )


def _cell(cell: Cell) -> str:
    if cell is None:
        return NONE
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else f"{cell}"

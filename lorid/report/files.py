"""A report's files: the page, and beside it each plot as SVG with its numbers as CSV.

write_report(analysis, folder)      # report.html, report-figures/NAME.svg, NAME.csv
"""

from pathlib import Path

from lorid.report.analysis import Analysis
from lorid.report.figures import figures_of
from lorid.report.page import render
from lorid.report.plots import draw

PAGE_FILE = "report.html"
FIGURES_FOLDER = "report-figures"


def write_report(analysis: Analysis, folder: Path) -> None:
    """Write all files into a folder that exists."""
    figures = figures_of(analysis)
    (folder / PAGE_FILE).write_text(render(analysis, figures), encoding="utf-8")
    beside = folder / FIGURES_FOLDER
    beside.mkdir(exist_ok=True)
    for figure in figures:
        (beside / f"{figure.name}.csv").write_text(figure.to_csv(), encoding="utf-8")
        svg = draw(figure)
        if svg is not None:
            (beside / f"{figure.name}.svg").write_text(svg + "\n", encoding="utf-8")

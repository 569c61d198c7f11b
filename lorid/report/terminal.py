"""The report on a terminal: the table, the rounds, one transcript."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorid.report.analysis import Analysis
from lorid.report.data import REFERENCE_GENERATIONS, loss_summary
from lorid.report.methods import MUTUAL_FEEDBACK
from lorid.report.stories import Story, choose_story

BAR_WIDTH = 40


def print_summary(analysis: Analysis, console: Console) -> None:
    """Print what each part contributed."""
    console.print(_table(analysis))
    console.print(
        "cover: questions answered, or agreed on; texts: generations per question, where the "
        f"reference draws {REFERENCE_GENERATIONS}.\n"
    )
    if analysis.pairs:
        console.print(_pairs(analysis))
        console.print(
            "won, lost: questions that only mutual feedback got right, that only the other did; "
            "p: McNemar's exact test.\n"
        )
    for role, curve in analysis.data.loss_curves.items():
        first, last = loss_summary(curve)
        console.print(f"  loss of the {role}: {first:.3f} -> {last:.3f} in {len(curve)} steps")
    _print_rounds(analysis.summary.rounds_histogram, console)
    story = choose_story(analysis.cases)
    if story is not None:
        _print_story(story, console)


def _table(analysis: Analysis) -> Table:
    # Narrow enough for 80 columns.
    num_problems = analysis.summary.num_problems
    title = f"{analysis.data.run_name}: what each part contributed to {num_problems} problems"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in ("accuracy", "95% interval", "cover", "rounds", "texts"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in (row for row in analysis.methods if row.is_part):
        low, high = row.interval
        table.add_row(
            row.method,
            "-" if row.accuracy is None else f"{row.accuracy:.1%}",
            f"{100 * low:.1f} - {100 * high:.1f}%",
            f"{row.coverage:.0%}",
            f"{row.mean_rounds:.2f}",
            f"{row.mean_generations:.2f}",
            style="bold" if row.method == MUTUAL_FEEDBACK else "",
        )
    return table


def _pairs(analysis: Analysis) -> Table:
    title = f"{MUTUAL_FEEDBACK} against each, on the same questions"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("against", no_wrap=True)
    for name in ("points", "95% interval", "won", "lost", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in analysis.pairs:
        low, high = one.interval
        table.add_row(
            Text(name),
            f"{100 * one.difference:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            str(one.num_only_a),
            str(one.num_only_b),
            f"{one.p_value:.2g}",
        )
    return table


def _print_rounds(histogram: dict[int, int], console: Console) -> None:
    console.print("\nRounds until agreement (or the end)")
    most = max(histogram.values(), default=1)
    for rounds, count in histogram.items():
        bar = "#" * max(1, round(BAR_WIDTH * count / most))
        console.print(f"  {rounds:>3}  {bar} {count}", markup=False, highlight=False)


def _print_story(story: Story, console: Console) -> None:
    # Text objects: what a model wrote is never markup.
    console.print(f"\n{story.title}")
    console.print(Text(f"  Question: {story.question}"))
    for number, one in enumerate(story.rounds, start=1):
        console.print(Text(f"  round {number}"))
        for name, text in (
            ("intuitive", one.intuitive),
            ("knowledge", one.knowledge),
            ("deep", one.deep),
        ):
            console.print(Text(f"    {name:<10} " + text.replace("\n", "\n" + " " * 15)))
    console.print(Text(f"  Answer: {story.answer} (label {story.gold})"))

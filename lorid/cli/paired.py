"""What `lorid replay` says of pairs, beside one rule's figures: `--against` and `--labels`."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lorid.errors import DataError

if TYPE_CHECKING:
    from lorid.method.attempts import JudgedAttempts, ProblemAttempts
    from lorid.method.paired import Paired
    from lorid.method.replay import ProblemScore
    from lorid.method.stopping import Policy

NUM_SHOWN = 20


def paired_with(
    attempts: Sequence["ProblemAttempts"],
    scores: Sequence["ProblemScore"],
    other: Sequence["ProblemAttempts"],
    other_judged: Sequence["JudgedAttempts"],
    *,
    policy: "Policy",
    named: str,
) -> "Paired":
    """One file's scores against another's, over the questions of both.

    Raises:
        DataError: no question is in both.
    """
    from lorid.method.paired import compare_pairs, rights_of
    from lorid.method.replay import score

    ours = _by_question(attempts, rights_of(scores))
    theirs = _by_question(other, rights_of([score(item, policy=policy) for item in other_judged]))
    paired = compare_pairs(ours, theirs)
    if not paired.num_problems:
        raise DataError(f"no labelled question is in both files; give one of the split of {named}")
    return paired


def print_pairs(pairs: Mapping[str, "Paired"]) -> None:
    """A table of the file, or the first rule, against others."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    for number, name in enumerate(("against", "points", "95% interval", "+", "-", "p", "of")):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for name, one in pairs.items():
        low, high = one.interval
        table.add_row(
            name,
            f"{100 * one.difference:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            str(one.num_only_a),
            str(one.num_only_b),
            f"{one.p_value:.2g}",
            f"{one.num_problems}",
        )
    Console(highlight=False).print(table)
    typer.echo("+: only the first is right, -: only the other; intervals: paired bootstrap,")
    typer.echo("p: McNemar's exact test.")


def print_labels(
    attempts: Sequence["ProblemAttempts"],
    judged: Sequence["JudgedAttempts"],
    *,
    policy: "Policy",
    as_json: bool,
) -> None:
    """Questions on which every rule agrees on an answer that is not the label."""
    from lorid.method.audit import find_suspect

    rows: list[dict[str, Any]] = []
    for item, one in zip(attempts, judged, strict=True):
        suspect = find_suspect(one, bounds=policy)
        if suspect is not None:
            rows.append(suspect.to_row(question=item.question, label=item.gold or ""))
    if as_json:
        typer.echo(json.dumps({"num_problems": len(judged), "suspects": rows}))
        return
    typer.echo(
        f"{len(rows)} of {len(judged)} labels are doubtful: every rule agrees on another answer"
    )
    for row in rows[:NUM_SHOWN]:
        question = " ".join(row["question"].split())[:100]
        typer.echo(
            f"  {row['problem_id']}: label {row['label']}, all say {row['answer']} "
            f"({row['num_votes']} of {row['num_attempts']} attempts)  {question}"
        )
    if len(rows) > NUM_SHOWN:
        typer.echo(f"  {len(rows) - NUM_SHOWN} more; --json gives all")


def _by_question(
    attempts: Sequence["ProblemAttempts"], rights: Mapping[str, bool]
) -> dict[str, bool]:
    """By the question's text, which is what two runs share; by the id where there is none."""
    return {
        item.question.strip() or item.problem_id: rights[item.problem_id]
        for item in attempts
        if item.problem_id in rights
    }

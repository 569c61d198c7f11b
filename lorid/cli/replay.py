"""`lorid replay`: logged attempts judged under any rule, without a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lorid.cli import completion
from lorid.cli.app import AsJson, app
from lorid.errors import DataError
from lorid.jsonl import read_lines, write_jsonl

if TYPE_CHECKING:
    from lorid.method.attempts import JudgedAttempts, ProblemAttempts
    from lorid.method.comparison import Comparison
    from lorid.method.replay import ProblemScore
    from lorid.method.stopping import Policy

NUM_NAMED = 5
SHOWN_STEPS = (1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 40, 64, 80, 100, 128, 200)
ORACLE_NOTE = "paper-oracle looks at the label: for comparison with published figures only."


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="attempts file (JSONL)")],
    rule: Annotated[
        str | None,
        typer.Option(
            help="paper (default), same-round, bayes, majority, ...",
            autocompletion=completion.rules,
        ),
    ] = None,
    max_rounds: Annotated[int, typer.Option(min=1, help="bound on the rounds")] = 20,
    tau: Annotated[float, typer.Option(help="posterior at which bayes stops")] = 0.95,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="no answer without agreement, instead of plurality")
    ] = False,
    intuitive_from: Annotated[
        Path | None, typer.Option(help="take the intuitive attempts from this attempts file")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(help="RULE,RULE,...: at the budget of the first")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="mean generations a problem, for --compare")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="another attempts file, compared on the questions of both")
    ] = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="list labels that every rule contradicts")
    ] = False,
    per_problem: Annotated[Path | None, typer.Option(help="write a line a problem here")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge logged attempts under any rule, without a model.

    Example: lorid replay attempts.jsonl --rule majority --json

    Example: lorid replay attempts.jsonl --compare paper,majority,bayes

    Example: lorid replay lorid.jsonl --intuitive-from other.jsonl

    Example: lorid replay mistral.jsonl --against llama.jsonl
    """
    from lorid.method.stopping import Policy

    _require_fitting(rule=rule, compare=compare, budget=budget, per_problem=per_problem)
    if sum((compare is not None, against is not None, labels)) > 1:
        raise DataError("--compare, --against and --labels exclude each other: give one")
    named = rule if compare is None else compare
    rules = [name.strip() for name in ("paper" if named is None else named).split(",")]
    policies = [
        Policy(
            rule=name,
            max_rounds=max_rounds,
            on_exhaustion="abstain" if abstain else "plurality",
            tau=tau,
        )
        for name in rules
    ]
    attempts, unmatched = _attempts(file, intuitive_from)
    judged = _judged(attempts)
    if labels:
        from lorid.cli.paired import print_labels

        print_labels(attempts, judged, policy=policies[0], as_json=as_json)
    elif against is not None:
        _against(attempts, judged, against, policy=policies[0], as_json=as_json)
    elif compare is not None:
        _compare(judged, policies, budget=budget, unmatched=unmatched, as_json=as_json)
    else:
        _replay(judged, policies[0], unmatched=unmatched, per_problem=per_problem, as_json=as_json)


def _against(
    attempts: Sequence["ProblemAttempts"],
    judged: Sequence["JudgedAttempts"],
    against: Path,
    *,
    policy: "Policy",
    as_json: bool,
) -> None:
    from lorid.cli.paired import paired_with, print_pairs
    from lorid.method.replay import score

    other = _read(against)
    scores = [score(item, policy=policy) for item in judged]
    paired = paired_with(attempts, scores, other, _judged(other), policy=policy, named=str(against))
    if as_json:
        typer.echo(json.dumps({"rule": policy.rule, **paired.to_dict()}))
    else:
        print_pairs({str(against): paired})


def _require_fitting(
    *, rule: str | None, compare: str | None, budget: float | None, per_problem: Path | None
) -> None:
    if compare is None and budget is not None:
        raise DataError("--budget is for --compare; --max-rounds bounds a single rule")
    if compare is not None and rule is not None:
        raise DataError("--rule and --compare exclude each other: name all rules in --compare")
    if compare is not None and per_problem is not None:
        raise DataError("--per-problem is for one rule: leave --compare out")


def _attempts(
    file: Path, intuitive_from: Path | None
) -> tuple[Sequence["ProblemAttempts"], dict[str, Any]]:
    """The attempts, and what `--intuitive-from` could not match, as `--json` prints it."""
    from lorid.method.attempts import join_intuitive

    attempts = _read(file)
    if intuitive_from is None:
        return attempts, {}
    joined = join_intuitive(attempts, _read(intuitive_from))
    for ids, what in (
        (joined.without_intuitive, f"of {file} are not in {intuitive_from}: left out"),
        (joined.without_deep, f"of {intuitive_from} are not in {file}: left out"),
        (joined.renamed, f"have another question in {intuitive_from}: matched by their id"),
    ):
        if ids:
            named = ", ".join(ids[:NUM_NAMED]) + (", ..." if len(ids) > NUM_NAMED else "")
            typer.echo(f"{len(ids)} problems {what} ({named})", err=True)
    unmatched = {
        "num_unmatched": len(joined.without_intuitive) + len(joined.without_deep),
        "without_intuitive": list(joined.without_intuitive),
        "without_deep": list(joined.without_deep),
    }
    return joined.attempts, unmatched


def _read(path: Path) -> list["ProblemAttempts"]:
    from lorid.method.attempts import read_attempts

    return read_attempts(read_lines(path), source=str(path))


def _judged(attempts: Sequence["ProblemAttempts"]) -> list["JudgedAttempts"]:
    from lorid.method.attempts import judge
    from lorid.method.equivalence import AnswerChecker

    with AnswerChecker() as checker:
        return [judge(item, checker) for item in attempts]


def _replay(
    judged: Sequence["JudgedAttempts"],
    policy: "Policy",
    *,
    unmatched: dict[str, Any],
    per_problem: Path | None,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from lorid.method.calibration import calibrate
    from lorid.method.comparison import figures_by_bound
    from lorid.method.replay import score
    from lorid.method.scoring import majority_at_k, pass_at_k, summarize

    scores = [score(item, policy=policy) for item in judged]
    if per_problem is not None:
        _write_scores(scores, per_problem)
    summary = summarize(scores, policy=policy).to_dict()
    details = {
        "calibration": calibrate(scores).to_dict(),
        "by_max_rounds": [asdict(one) for one in figures_by_bound(judged, policy=policy)],
        "majority_at_k": [asdict(a) for a in majority_at_k(judged, max_rounds=policy.max_rounds)],
        "pass_at_k": [asdict(a) for a in pass_at_k(judged, max_rounds=policy.max_rounds)],
    }
    if as_json:
        typer.echo(json.dumps({**summary, **details, **unmatched}))
        return
    for name, value in summary.items():
        typer.echo(f"{name:<20} {_shown(value)}")
    _print_details(details)
    if policy.rule == "paper-oracle":
        typer.echo(ORACLE_NOTE)


def _write_scores(scores: Sequence["ProblemScore"], path: Path) -> None:
    rows = (
        {
            "problem_id": score.problem_id,
            "answer": score.answer,
            "outcome": score.outcome,
            "num_rounds": score.num_rounds,
            "correct": score.correct,
        }
        for score in scores
    )
    write_jsonl(path, rows)


def _compare(
    judged: Sequence["JudgedAttempts"],
    policies: Sequence["Policy"],
    *,
    budget: float | None,
    unmatched: dict[str, Any],
    as_json: bool,
) -> None:
    from lorid.method.comparison import compare

    comparison = compare(judged, policies=policies, budget=budget)
    if as_json:
        typer.echo(json.dumps({**comparison.to_dict(), **unmatched}))
        return
    _print_comparison(comparison, num_problems=len(judged))


def _print_comparison(comparison: "Comparison", *, num_problems: int) -> None:
    title = f"{num_problems} problems, at most {comparison.budget:.2f} generations a problem"
    rows: list[list[str]] = []
    notes: list[str] = []
    for one in comparison.rules:
        summary = one.summary
        low, high = summary.interval
        share = one.num_with_one_more / max(1, num_problems)
        rows.append(
            [
                summary.rule,
                _percent(summary.accuracy),
                f"{100 * low:.1f}-{100 * high:.1f}%",
                _percent(summary.coverage),
                _percent(summary.accuracy_when_agreed),
                f"{summary.mean_generations:.2f}",
                f"{summary.max_rounds + share:.2f}",
                "-" if one.brier is None else f"{one.brier:.3f}",
            ]
        )
        if not one.within_budget:
            notes.append(f"{summary.rule}: one round of each problem is beyond the budget.")
        if summary.rule == "paper-oracle":
            notes.append(ORACLE_NOTE)
    columns = ("rule", "accuracy", "95% interval", "agreed", "right", "texts", "N", "Brier")
    _print_table(columns, rows, title=title)
    typer.echo("right: of the agreed ones; texts: generations a problem; N: bound on the rounds,")
    typer.echo("a mean where problems differ. Intervals: bootstrap.")
    for note in notes:
        typer.echo(note)
    if len(comparison.rules) > 1:
        from lorid.cli.paired import print_pairs

        typer.echo(f"\n{comparison.rules[0].summary.rule} against each, on the same problems")
        print_pairs({one.summary.rule: one.paired for one in comparison.rules if one.paired})


def _print_details(details: dict[str, Any]) -> None:
    bounds = details["by_max_rounds"]
    _print_table(
        ("max_rounds", "accuracy", "coverage", "rounds", "generations"),
        [
            [
                str(one["max_rounds"]),
                _percent(one["accuracy"]),
                _percent(one["coverage"]),
                f"{one['mean_rounds']:.2f}",
                f"{one['mean_generations']:.2f}",
            ]
            for one in bounds
            if one["max_rounds"] in SHOWN_STEPS or one is bounds[-1]
        ],
    )
    pools = list(zip(details["majority_at_k"], details["pass_at_k"], strict=True))
    _print_table(
        ("k", "majority@k", "pass@k", "problems"),
        [
            [
                str(ours["k"]),
                _percent(ours["value"]),
                _percent(of["value"]),
                str(of["num_problems"]),
            ]
            for ours, of in pools
            if ours["k"] in SHOWN_STEPS or ours is pools[-1][0]
        ],
    )
    calibration = details["calibration"]
    _print_table(
        ("confidence", "answers", "mean", "right"),
        [
            [
                f"{one['low']:.1f} - {one['high']:.1f}",
                str(one["num_answers"]),
                f"{one['mean_confidence']:.3f}",
                _percent(one["accuracy"]),
            ]
            for one in calibration["bins"]
        ],
    )
    if calibration["brier"] is not None:
        typer.echo(f"{'brier':<20} {calibration['brier']:.4f}")


def _print_table(columns: Sequence[str], rows: list[list[str]], *, title: str = "") -> None:
    if not rows:
        return
    # Narrow enough for 80 columns.
    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " - ".join(f"{one:.4f}" for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key}: {count}" for key, count in value.items())
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)

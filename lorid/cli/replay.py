"""`lorid replay`: logged attempts judged under any rule, without a model."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lorid.cli.app import AsJson, app
from lorid.errors import DataError
from lorid.jsonl import read_jsonl


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="attempts file (JSONL)")],
    rule: Annotated[str, typer.Option(help="paper, same-round, majority, ...")] = "paper",
    max_rounds: Annotated[int, typer.Option(min=1)] = 20,
    per_problem: Annotated[Path | None, typer.Option(help="write a line a problem here")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge logged attempts under any rule, without a model.

    Example: lorid replay attempts.jsonl --rule majority --json
    """
    from lorid.method.equivalence import AnswerChecker
    from lorid.method.feedback import Policy
    from lorid.method.scoring import parse_attempts_line, summarize
    from lorid.method.scoring import replay as replay_attempts

    attempts = []
    for number, row in read_jsonl(file):
        try:
            attempts.append(parse_attempts_line(row))
        except DataError as error:
            raise DataError(f"{file}, line {number}: {error}") from error
    policy = Policy(rule=rule, max_rounds=max_rounds)
    with AnswerChecker() as checker:
        scores = replay_attempts(attempts, policy=policy, checker=checker)
    if per_problem is not None:
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
        per_problem.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary = summarize(scores, policy=policy).to_dict()
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for name, value in summary.items():
        typer.echo(f"{name:<20} {f'{value:.4f}' if isinstance(value, float) else value}")

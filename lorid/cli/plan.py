"""`lorid plan`: what a run will take, before anything is spent."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lorid.cli.app import AsJson, Overrides, Preset, app, say_next

if TYPE_CHECKING:
    from lorid.distributed.planning import EvaluationPlan, Plan, TeacherPlan, TrainingPlan


@app.command()
def plan(
    file: Annotated[str | None, typer.Argument(help="config file, or s3://...")] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    train_tokens_per_s: Annotated[
        float | None, typer.Option(min=1e-6, help="tokens that one of your GPUs trains a second")
    ] = None,
    output_tokens: Annotated[
        int, typer.Option(min=1, help="tokens of an answer of the teacher, as you expect them")
    ] = 90,
    agreement_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="share of rounds that end a question")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Say what a run will take and cost; spends nothing.

    Requests and price of the teacher, steps and tokens of training, generations of evaluation.

    Example: lorid plan run.yaml --train-tokens-per-s 3000
    """
    from lorid.artifacts.configs import open_config
    from lorid.distributed.opening import open_run
    from lorid.distributed.planning import Assumed, plan_run

    config = open_config(file, preset=preset, overrides=overrides or [])
    assumed = Assumed(
        output_tokens=output_tokens,
        train_tokens_per_s=train_tokens_per_s,
        agreement_rate=agreement_rate,
    )
    run = open_run(config)
    made = plan_run(run.config, store=run.store, assumed=assumed)
    if as_json:
        typer.echo(json.dumps(asdict(made)))
        return
    for line in plan_lines(made):
        typer.echo(line)
    say_next(f"python jobs/distill.py {f'--config {file}' if file else f'--preset {preset}'}")


def plan_lines(plan: "Plan") -> list[str]:
    """The plan as text."""
    return [
        f"Plan of run {plan.run!r}; ~ marks estimates",
        *_teacher(plan.teacher),
        *_training(plan.training),
        *_evaluation(plan.evaluation),
        *(f"note: {note}" for note in plan.notes),
    ]


def _teacher(teacher: "TeacherPlan") -> list[str]:
    saved = teacher.num_problems - teacher.num_sources
    lines = [
        "teacher",
        f"  {teacher.num_requests:,} requests for {teacher.num_problems:,} problems "
        f"({saved:,} share a source question, {teacher.num_answered:,} are answered already; "
        f"at most {teacher.num_requests_at_most:,} with answers that cannot be used)",
        f"  ~{teacher.prompt_tokens:,} tokens read (by {teacher.prompt_tokens_by}), "
        f"~{teacher.output_tokens:,} written ({teacher.output_tokens_by})",
    ]
    if teacher.price is not None:
        cap = f", cap {teacher.max_cost:g}" if teacher.max_cost is not None else ""
        lines.append(
            f"  ~{teacher.price:,.2f} {teacher.currency} "
            f"(at most {teacher.price_at_most:,.2f}{cap})"
        )
    if teacher.seconds_at_least is not None:
        lines.append(f"  at least {_duration(teacher.seconds_at_least)} under the rate limits")
    return lines


def _training(training: "TrainingPlan") -> list[str]:
    lines = ["training"]
    for role in training.roles:
        lines.append(
            f"  {role.role}: {role.num_steps:,} steps, ~{role.tokens:,} tokens "
            f"({role.num_sequences:,} sequences, {role.num_epochs:g} epochs)"
        )
    lines.append(f"  ~{training.tokens:,} tokens in all (by {training.tokens_by})")
    if training.gpu_hours is not None:
        lines.append(
            f"  ~{training.gpu_hours:,.1f} GPU-hours at {training.tokens_per_s:,g} tokens/s, "
            "the rate that you gave"
        )
    return lines


def _evaluation(evaluation: "EvaluationPlan") -> list[str]:
    least, most = evaluation.num_generations_at_least, evaluation.num_generations_at_most
    asked = f"for {evaluation.num_questions:,} questions by {evaluation.rule!r}"
    if least == most:
        return ["evaluation", f"  {most:,} generations {asked}"]
    return [
        "evaluation",
        f"  ~{evaluation.num_generations:,} generations {asked} "
        f"(if {evaluation.agreement_rate:.0%} of the rounds agree; from {least:,} to {most:,})",
    ]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

"""What a worker of Ray Train does: load, restore if there is a checkpoint, train, report.

    TorchTrainer(train_in_worker, train_loop_config={...})    # by lorid.distributed.training

`report` is a barrier and throttles, so it is called at checkpoints only; step metrics go to the
StepBoard without waiting. What would fail in the same way again is said to the board, not raised.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ray
import torch
from ray.train import Checkpoint, get_checkpoint, report

from lorid.artifacts.enriched import read_enriched
from lorid.artifacts.records import fetch, load_record
from lorid.artifacts.store import open_store
from lorid.config import RunConfig
from lorid.distributed.checkpoints import opened, seal
from lorid.distributed.progress import StepPoster
from lorid.errors import AdapterMismatch, TrainingError
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role
from lorid.method.templates import TokenizerLike
from lorid.training.adapters import load_tokenizer
from lorid.training.batches import EncodingCounts, Example, encode_examples
from lorid.training.loop import TrainingSession
from lorid.training.pace import Pace

Board = Any  # the StepBoard's actor handle, whose methods Ray makes as it runs


def train_in_worker(settings: dict[str, Any]) -> None:
    """What each worker runs: load, restore if there is a checkpoint, train, report."""
    config = RunConfig.model_validate_json(settings["config"])
    roles, board = [Role(role) for role in settings["roles"]], settings["board"]
    torch.set_num_threads(config.training.num_threads)
    try:
        problems = _fetch_problems(config, settings["knowledge_address"])
        examples, counts = _encode(config, problems, roles=roles)
        device = torch.device("cuda" if config.training.num_gpus else "cpu")
        session = TrainingSession(config, examples=examples, device=device)
        checkpoint = get_checkpoint()
        if checkpoint is not None:
            with opened(checkpoint) as saved:
                session.restore(saved)
        _train_to_the_end(session, board=board, counts=counts)
    except (TrainingError, AdapterMismatch) as error:
        # It would fail in the same way again: said, and not raised for Ray to retry.
        for role in roles:
            ray.get(board.give_up.remote(role, str(error)))


def _fetch_problems(config: RunConfig, address: str) -> list[EnrichedProblem]:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(config.store)
        fetch(store, load_record(store, address), into=Path(folder))
        return list(read_enriched(Path(folder)))


def _encode(
    config: RunConfig, problems: Sequence[EnrichedProblem], *, roles: Sequence[Role]
) -> tuple[dict[Role, list[Example]], dict[Role, EncodingCounts]]:
    tokenizer = cast("TokenizerLike", load_tokenizer(config.student))
    encoded = {
        role: encode_examples(
            problems,
            tokenizer=tokenizer,
            family=config.student.family,
            role=role,
            max_tokens=config.training.max_sequence_tokens,
            too_long=config.training.too_long,
        )
        for role in roles
    }
    examples = {role: found for role, (found, _) in encoded.items()}
    return examples, {role: counts for role, (_, counts) in encoded.items()}


def _train_to_the_end(
    session: TrainingSession, *, board: Board, counts: Mapping[Role, EncodingCounts]
) -> None:
    training = session.config.training
    pace = Pace(every_steps=training.checkpoint_every_steps, minutes=training.checkpoint_minutes)
    poster = StepPoster(board, session.tracks)
    for role, found in counts.items():
        if said := found.said(max_tokens=training.max_sequence_tokens):
            board.note.remote(role, said)
    poster.post()
    if not session.is_active:
        _report(session, counts)
    while session.is_active:
        try:
            session.train_step()
        except TrainingError as error:
            ray.get(poster.post(at_once=True))
            raise TrainingError(f"{error}; {pace.last_checkpoint()}") from error
        poster.post()
        if pace.is_due(session.step) or not session.is_active:
            _report(session, counts)
            pace.saved(session.step)
    # Waited for, so that the driver has every step when this worker has ended.
    ray.get(poster.post(at_once=True))
    for role, track in session.tracks.items():
        if track.failure is not None:
            reason = f"{track.failure}; {pace.last_checkpoint()}"
            ray.get(board.give_up.remote(role, reason))


def _report(session: TrainingSession, counts: Mapping[Role, EncodingCounts]) -> None:
    summary = {
        str(role): {
            "step": track.step,
            "loss": track.metrics[-1].loss if track.metrics else float("nan"),
            "num_examples": len(track.examples),
            "num_dropped_too_long": counts[role].num_dropped,
            "num_truncated": counts[role].num_truncated,
            **(
                {}
                if track.best is None
                else {"best_step": track.best.step, "best_validation_loss": track.best.loss}
            ),
            "train_seconds": round(sum(metrics.seconds for metrics in track.metrics), 1),
        }
        for role, track in session.tracks.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        session.save(Path(folder))
        seal(Path(folder))
        report(summary, checkpoint=Checkpoint.from_directory(folder))

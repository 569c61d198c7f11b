"""What a worker of Ray Train does: load, restore if there is a checkpoint, train, report.

    TorchTrainer(train_in_worker, train_loop_config={...})    # by lorid.distributed.training

`report` is a barrier and throttles, so it is called at checkpoints only; step metrics go to the
StepBoard without waiting. What would fail in the same way again is said to the board, not raised.
Workers of one training decide together: what one alone knows (its clock, a notice that its node
will be taken, the driver's wish for a checkpoint) is put to the vote.
"""

import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ray
import torch
from ray.exceptions import RayError
from ray.train import get_checkpoint, get_preemption_info

from lorid.artifacts.enriched import read_enriched
from lorid.artifacts.records import fetch, load_record
from lorid.artifacts.store import open_store
from lorid.config import RunConfig
from lorid.distributed.checkpoints import CheckpointSender, opened
from lorid.distributed.lost_peers import losses_first
from lorid.distributed.preemption import Notices
from lorid.distributed.progress import StepPoster
from lorid.errors import AdapterMismatch, TrainingError
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role
from lorid.method.templates import TokenizerLike
from lorid.training.adapters import load_tokenizer
from lorid.training.batches import EncodingCounts, Example, encode_examples
from lorid.training.loop import TrainingSession
from lorid.training.pace import Pace
from lorid.training.ranks import Ranks

Board = Any  # the StepBoard's actor handle, whose methods Ray makes as it runs


def train_in_worker(settings: dict[str, Any]) -> None:
    """What each worker runs: load, restore if there is a checkpoint, train, report."""
    config = RunConfig.model_validate_json(settings["config"])
    roles, board = [Role(role) for role in settings["roles"]], settings["board"]
    torch.set_num_threads(config.training.num_threads)
    ranks = Ranks.joined(_device(config))
    if ranks.rank == 0:
        for role in roles:
            board.began.remote(role, _own_log())
    try:
        problems = _fetch_problems(config, settings["knowledge_address"])
        examples, counts = encode_roles(config, problems, roles=roles)
        session = TrainingSession(config, examples=examples, device=ranks.device, ranks=ranks)
        checkpoint = get_checkpoint()
        if checkpoint is not None:
            with opened(checkpoint) as saved:
                session.restore(saved)
        with losses_first(ranks):
            _train_to_the_end(session, board=board, counts=counts)
    except (TrainingError, AdapterMismatch) as error:
        # It would fail in the same way again: said, and not raised for Ray to retry.
        for role in roles:
            ray.get(board.give_up.remote(role, str(error)))


def _device(config: RunConfig) -> torch.device:
    if not config.training.num_gpus:
        return torch.device("cpu")
    # Ray Train has chosen it: workers of one node see all of its GPUs.
    return torch.device("cuda", torch.cuda.current_device())


def _own_log() -> str:
    """Where Ray keeps what this process writes to stderr, on which machine."""
    try:
        path = os.readlink("/proc/self/fd/2")
    except OSError:  # not Linux
        path = f"process {os.getpid()}"
    return f"{socket.gethostname()}:{path}"


def _fetch_problems(config: RunConfig, address: str) -> list[EnrichedProblem]:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(config.store)
        fetch(store, load_record(store, address), into=Path(folder))
        return list(read_enriched(Path(folder)))


def encode_roles(
    config: RunConfig, problems: Sequence[EnrichedProblem], *, roles: Sequence[Role]
) -> tuple[dict[Role, list[Example]], dict[Role, EncodingCounts]]:
    """Each role's examples, and how many were too long."""
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
    training, ranks = session.config.training, session.ranks
    pace = Pace(every_steps=training.checkpoint_every_steps, minutes=training.checkpoint_minutes)
    # Ranks have the same steps: one tells the driver, and hears what it wishes.
    poster = StepPoster(board, session.tracks, take=_taken, is_silent=ranks.rank != 0)
    notices = Notices(ranks, ask_ray=get_preemption_info, take_wish=poster.take_wish)
    sender = CheckpointSender()
    if ranks.rank == 0:
        _note_what_was_too_long(board, counts, max_tokens=training.max_sequence_tokens)
    poster.post()
    if not session.is_active:
        sender.send(session, _summary(session, counts))
    while session.is_active:
        try:
            session.train_step()
        except TrainingError as error:
            _post_the_rest(poster)
            raise TrainingError(f"{error}; {pace.last_checkpoint()}") from error
        poster.post()
        (is_due,) = ranks.any(pace.is_due(session.step))
        if notices.seen() or is_due or not session.is_active:
            sender.send(session, _summary(session, counts))
            pace.saved(session.step)
    notices.stop()
    _post_the_rest(poster)
    for role, track in session.tracks.items():
        if track.failure is not None:
            reason = f"{track.failure}; {pace.last_checkpoint()}"
            ray.get(board.give_up.remote(role, reason))


def _note_what_was_too_long(
    board: Board, counts: Mapping[Role, EncodingCounts], *, max_tokens: int
) -> None:
    for role, found in counts.items():
        if said := found.said(max_tokens=max_tokens):
            board.note.remote(role, said)


def _taken(reply: Any, patience: float) -> int | None:
    try:
        return ray.get(reply, timeout=patience)
    except RayError:  # it is not there yet
        return None


def _post_the_rest(poster: StepPoster) -> None:
    """Waited for, so that the driver has every step when this worker has ended."""
    sent = poster.post(at_once=True)
    if sent is not None:
        ray.get(sent)


def _summary(
    session: TrainingSession, counts: Mapping[Role, EncodingCounts]
) -> dict[str, dict[str, Any]]:
    """What the adapters' records say about the training so far."""
    return {
        str(role): {
            "step": track.step,
            "loss": track.metrics[-1].loss if track.metrics else float("nan"),
            "num_examples": len(track.examples),
            "num_dropped_too_long": counts[role].num_dropped,
            "num_truncated": counts[role].num_truncated,
            "num_untargeted": counts[role].num_untargeted,
            "num_workers": ", then ".join(map(str, session.num_workers)),
            **(
                {}
                if track.best is None
                else {"best_step": track.best.step, "best_validation_loss": track.best.loss}
            ),
            "train_seconds": round(sum(metrics.seconds for metrics in track.metrics), 1),
        }
        for role, track in session.tracks.items()
    }

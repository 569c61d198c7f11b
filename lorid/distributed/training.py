"""Ray Train runs of the three roles: one a role at the same time, or one for all (fused).

    driver --- thread IR --- TorchTrainer.fit() --- worker (own CPUs/GPU) --.
       |------ thread KG --- TorchTrainer.fit() --- worker -----------------+--> checkpoints in the
       |------ thread DR --- TorchTrainer.fit() --- worker -----------------'    store's train-runs/
       |                                              |
       `-- display <-- StepBoard actor <--------------'  newest step metrics, sent without waiting

With `training.mode: fused` there is one thread and one worker, which holds the base once. Nothing
waits for another role. A role that fails does not stop the others: what they finish is published,
and the next run trains only what is missing. `report` is a barrier and throttles, so workers report
at checkpoints only; a worker that dies goes on from its newest checkpoint. What no retry can mend
is found here before workers start, or said by the worker to the board, and is not retried.
"""

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import ray
import torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    ScalingConfig,
    get_checkpoint,
    report,
)
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer

from lorid.artifacts.enriched import read_enriched
from lorid.artifacts.records import fetch, load_record
from lorid.artifacts.store import open_store
from lorid.config import RunConfig
from lorid.distributed.checkpoints import checkpoint_storage, opened, seal
from lorid.distributed.cluster import concurrent_slots, only_errors
from lorid.distributed.failures import root_cause
from lorid.distributed.progress import Progress, StepBoard
from lorid.distributed.saving import SaveNotes, saving_when_interrupted
from lorid.errors import AdapterMismatch, TrainingError, one_line
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role
from lorid.method.templates import TokenizerLike
from lorid.training.adapters import check_training, load_tokenizer
from lorid.training.batches import EncodingCounts, Example, encode_examples
from lorid.training.loop import ADAPTER_FOLDER, BEST_FOLDER, TrainingSession
from lorid.training.pace import Pace
from lorid.training.track import METRICS_FILE

SECONDS_BETWEEN_POSTS = 0.5
Board = Any  # the StepBoard's actor handle, whose methods Ray makes as it runs


@dataclass(frozen=True, kw_only=True)
class RoleJob:
    """One role to train: its name in Ray Train, and what to do with the finished files."""

    role: Role
    run_name: str
    publish: Callable[[Path, Mapping[str, Any]], None]


def train_roles(config: RunConfig, *, jobs: Sequence[RoleJob], knowledge_address: str) -> None:
    """Train the roles, at once or fused, publishing each as its run finishes.

    Raises:
        AdapterMismatch, ConfigError: the base does not fit the settings; nothing was started.
        TrainingError: one or more roles failed; the others are published.
    """
    training = config.training
    check_training(config)
    only_errors("ray.train")
    groups = [list(jobs)] if training.mode == "fused" else [[job] for job in jobs]
    slots = concurrent_slots(
        num_cpus=training.num_cpus, num_gpus=training.num_gpus, wanted=len(groups)
    )
    gate = threading.Semaphore(slots)
    board = ray.remote(num_cpus=0)(StepBoard).remote()
    failures: dict[Role, Exception] = {}

    def run(group: Sequence[RoleJob]) -> None:
        with gate:
            try:
                failures.update(
                    _train_group(config, group, knowledge_address=knowledge_address, board=board)
                )
            except Exception as error:
                failures.update({job.role: error for job in group})

    # Daemon threads: an interrupted driver must not wait for a fit() that nobody wants any more.
    threads = [
        threading.Thread(target=run, args=(group,), name=_group_name(group), daemon=True)
        for group in groups
    ]
    with Progress("train") as progress, saving_when_interrupted(board):
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            _show(progress, board)
            time.sleep(0.5)
        _show(progress, board)
    if failures:
        raise _explained(failures) from next(iter(failures.values()))


def _group_name(group: Sequence[RoleJob]) -> str:
    """A group's name in Ray Train: the same roles with the same inputs go on where they were."""
    if len(group) == 1:
        return group[0].run_name
    digest = hashlib.sha256(" ".join(job.run_name for job in group).encode()).hexdigest()[:12]
    return f"{group[0].run_name.partition('-' + group[0].role)[0]}-fused-{digest}"


def _train_group(
    config: RunConfig, group: Sequence[RoleJob], *, knowledge_address: str, board: Board
) -> dict[Role, Exception]:
    """Train and publish; returns the roles that their worker gave up, and why."""
    training = config.training
    resources = {"CPU": training.num_cpus}
    if training.num_gpus:
        resources["GPU"] = training.num_gpus
    trainer = TorchTrainer(
        _train_in_worker,
        train_loop_config={
            "config": config.model_dump_json(),
            "roles": [str(job.role) for job in group],
            "knowledge_address": knowledge_address,
            "board": board,
        },
        scaling_config=ScalingConfig(
            num_workers=1, use_gpu=training.num_gpus > 0, resources_per_worker=resources
        ),
        run_config=RayRunConfig(
            name=_group_name(group),
            **checkpoint_storage(config.store),
            failure_config=FailureConfig(max_failures=training.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=[SaveNotes(board, [str(job.role) for job in group])],
        ),
    )
    result = trainer.fit()
    given_up = cast("dict[str, str]", ray.get(board.read_given_up.remote()))
    failures: dict[Role, Exception] = {
        job.role: TrainingError(given_up[job.role]) for job in group if job.role in given_up
    }
    if len(failures) == len(group):
        return failures
    if result.error is not None or result.checkpoint is None:
        raise TrainingError(str(result.error or "no checkpoint came back"))
    with opened(result.checkpoint) as folder:
        for job in group:
            if job.role not in failures:
                wanted = BEST_FOLDER if training.publish == "best" else ADAPTER_FOLDER
                _publish(job, folder / job.role, wanted, (result.metrics or {})[job.role])
    return failures


def _publish(job: RoleJob, trained: Path, wanted: str, details: Mapping[str, Any]) -> None:
    """The checkpoint also holds optimizer state: only adapter and metrics are the artifact."""
    with tempfile.TemporaryDirectory() as clean:
        shutil.copytree(trained / wanted, Path(clean), dirs_exist_ok=True)
        shutil.copy(trained / METRICS_FILE, clean)
        job.publish(Path(clean), details)


def _train_in_worker(settings: dict[str, Any]) -> None:
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
    posted, is_asked = 0.0, False
    if not session.is_active:
        _report(session, counts)
    while session.is_active:
        try:
            all_metrics = session.train_step()
        except TrainingError as error:
            raise TrainingError(f"{error}; {pace.last_checkpoint()}") from error
        if not session.is_active or time.monotonic() - posted > SECONDS_BETWEEN_POSTS:
            posts = [board.post.remote(metrics.role, asdict(metrics)) for metrics in all_metrics]
            is_asked = any(cast("list[bool]", ray.get(posts)))
            posted = time.monotonic()
        if is_asked or pace.is_due(session.step) or not session.is_active:
            _report(session, counts)
            pace.saved(session.step)
            is_asked = False
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


def _show(progress: Progress, board: Board) -> None:
    boards = cast("dict[str, dict[str, float]]", ray.get(board.read.remote()))
    for role, newest in boards.items():
        note = f"loss {newest['loss']:.3f}  {newest['tokens_per_s']:,.0f} tok/s"
        progress.update(role, done=int(newest["step"]), total=int(newest["num_steps"]), note=note)


def _explained(failures: Mapping[Role, Exception]) -> TrainingError:
    causes = {role: root_cause(error) for role, error in failures.items()}
    roles_by_text: dict[str, list[Role]] = {}
    for role, cause in causes.items():
        roles_by_text.setdefault(one_line(cause, max_chars=300), []).append(role)
    lines = [f"{', '.join(roles)}: {text}" for text, roles in roles_by_text.items()]
    error = TrainingError("not trained: " + "; ".join(lines) + "; run again to resume")
    error.exit_code = max(getattr(cause, "exit_code", 1) for cause in causes.values())
    return error

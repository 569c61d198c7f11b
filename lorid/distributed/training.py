"""Three Ray Train runs at the same time, one per role.

    driver --- thread IR --- TorchTrainer.fit() --- worker (own CPUs/GPU) --.
       |------ thread KG --- TorchTrainer.fit() --- worker -----------------+--> checkpoints in the
       |------ thread DR --- TorchTrainer.fit() --- worker -----------------'    store's train-runs/
       |                                              |
       `-- display <-- StepBoard actor <--------------'  newest step metrics, sent without waiting

Nothing waits for another role. A role that fails does not stop the others: what they finish is
published, and the next run trains only what is missing. `report` is a barrier and throttles, so
workers report at checkpoints only; a worker that dies goes on from its newest checkpoint.
"""

import os
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
from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem
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
from lorid.distributed.cluster import concurrent_slots, only_errors
from lorid.distributed.failures import root_cause
from lorid.distributed.progress import Progress, StepBoard
from lorid.errors import TrainingError
from lorid.method.roles import Role
from lorid.method.templates import TokenizerLike
from lorid.training.adapters import load_tokenizer
from lorid.training.batches import encode_examples
from lorid.training.loop import ADAPTER_FOLDER, METRICS_FILE, TrainingSession

SECONDS_BETWEEN_POSTS = 0.5
# Between tries S3's client waits up to 20 s: 25 tries outlast a server that is gone for minutes.
NUM_S3_TRIES = 25
Board = Any  # the StepBoard's actor handle, whose methods Ray makes as it runs


@dataclass(frozen=True, kw_only=True)
class RoleJob:
    """One role to train: its name in Ray Train, and what to do with the finished files."""

    role: Role
    run_name: str
    publish: Callable[[Path, Mapping[str, Any]], None]


def train_roles(config: RunConfig, *, jobs: Sequence[RoleJob], knowledge_address: str) -> None:
    """Train the roles at once, publishing each as it finishes.

    Raises:
        TrainingError: one or more roles failed; the others are published.
    """
    training = config.training
    only_errors("ray.train")
    slots = concurrent_slots(
        num_cpus=training.num_cpus, num_gpus=training.num_gpus, wanted=len(jobs)
    )
    gate = threading.Semaphore(slots)
    board = ray.remote(num_cpus=0)(StepBoard).remote()
    failures: dict[Role, Exception] = {}

    def run(job: RoleJob) -> None:
        with gate:
            try:
                _train_role(config, job, knowledge_address=knowledge_address, board=board)
            except Exception as error:
                failures[job.role] = error

    # Daemon threads: an interrupted driver must not wait for a fit() that nobody wants any more.
    threads = [
        threading.Thread(target=run, args=(job,), name=job.run_name, daemon=True) for job in jobs
    ]
    with Progress("train") as progress:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            _show(progress, board)
            time.sleep(0.5)
        _show(progress, board)
    if failures:
        raise _explained(failures) from next(iter(failures.values()))


def _train_role(config: RunConfig, job: RoleJob, *, knowledge_address: str, board: Board) -> None:
    training = config.training
    resources = {"CPU": training.num_cpus}
    if training.num_gpus:
        resources["GPU"] = training.num_gpus
    trainer = TorchTrainer(
        _train_in_worker,
        train_loop_config={
            "config": config.model_dump_json(),
            "role": str(job.role),
            "knowledge_address": knowledge_address,
            "board": board,
        },
        scaling_config=ScalingConfig(
            num_workers=1, use_gpu=training.num_gpus > 0, resources_per_worker=resources
        ),
        run_config=RayRunConfig(
            name=job.run_name,
            **checkpoint_storage(config.store),
            failure_config=FailureConfig(max_failures=training.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    result = trainer.fit()
    if result.error is not None or result.checkpoint is None:
        raise TrainingError(str(result.error or "no checkpoint came back"))
    with result.checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as clean:
        # The checkpoint also holds optimizer state: only adapter and metrics are the artifact.
        shutil.copytree(Path(folder) / ADAPTER_FOLDER, Path(clean), dirs_exist_ok=True)
        shutil.copy(Path(folder) / METRICS_FILE, clean)
        job.publish(Path(clean), result.metrics or {})


def checkpoint_storage(store: str) -> dict[str, Any]:
    """Where Ray Train keeps checkpoints of unfinished roles: beside the artifacts, in the store."""
    root = f"{store.rstrip('/')}/train-runs"
    if not root.startswith("s3://"):
        return {"storage_path": root}
    found, path = FileSystem.from_uri(root)
    return {"storage_path": path, "storage_filesystem": PatientS3.of_region(found.region)}


class PatientS3(S3FileSystem):
    """pyarrow's S3, waiting about three minutes for a server that is gone instead of a second.

    pyarrow loses the retry strategy when it pickles a file system; this one keeps it.
    """

    @classmethod
    def of_region(cls, region: str) -> "PatientS3":
        """One for buckets in that region; everything else comes from the environment."""
        # Unlike `from_uri`, the constructor does not look for the endpoint in the environment.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return cls(
            region=region,
            endpoint_override=endpoint,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=NUM_S3_TRIES),
        )

    def __reduce__(self) -> Any:
        return PatientS3.of_region, (self.region,)


def _train_in_worker(settings: dict[str, Any]) -> None:
    """What each worker runs: load, restore if there is a checkpoint, train, report."""
    config = RunConfig.model_validate_json(settings["config"])
    role, board = Role(settings["role"]), settings["board"]
    torch.set_num_threads(config.training.num_threads)
    device = torch.device("cuda" if config.training.num_gpus else "cpu")
    tokenizer = load_tokenizer(config.student)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(config.store)
        fetch(store, load_record(store, settings["knowledge_address"]), into=Path(folder))
        problems = list(read_enriched(Path(folder)))
    examples, num_dropped = encode_examples(
        problems,
        tokenizer=cast("TokenizerLike", tokenizer),
        family=config.student.family,
        role=role,
        max_tokens=config.training.max_sequence_tokens,
    )
    session = TrainingSession(
        config, role=role, examples=examples, tokenizer=tokenizer, device=device
    )
    checkpoint = get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as saved:
            session.restore(Path(saved))
    _train_to_the_end(session, board=board, num_dropped=num_dropped)


def _train_to_the_end(session: TrainingSession, *, board: Board, num_dropped: int) -> None:
    every = session.config.training.checkpoint_every_steps
    posted = 0.0
    if session.step == session.num_steps:
        _report(session, num_dropped=num_dropped)
    while session.step < session.num_steps:
        metrics = session.train_step()
        is_last = session.step == session.num_steps
        if is_last or time.monotonic() - posted > SECONDS_BETWEEN_POSTS:
            board.post.remote(metrics.role, asdict(metrics))
            posted = time.monotonic()
        if is_last or session.step % every == 0:
            _report(session, num_dropped=num_dropped)


def _report(session: TrainingSession, *, num_dropped: int) -> None:
    summary = {
        "step": session.step,
        "loss": session.metrics[-1].loss,
        "num_examples": len(session.examples),
        "num_dropped_too_long": num_dropped,
        "train_seconds": round(sum(metrics.seconds for metrics in session.metrics), 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        session.save(Path(folder))
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
        roles_by_text.setdefault(" ".join(str(cause).split())[:300], []).append(role)
    lines = [f"{', '.join(roles)}: {text}" for text, roles in roles_by_text.items()]
    error = TrainingError("not trained: " + "; ".join(lines) + "; run again to resume")
    error.exit_code = max(getattr(cause, "exit_code", 1) for cause in causes.values())
    return error

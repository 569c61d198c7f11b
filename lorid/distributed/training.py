"""Ray Train runs of the three roles: one a role at the same time, or one for all (fused).

    driver --- thread IR --- TorchTrainer.fit() --- worker (own CPUs/GPU) --.
       |------ thread KG --- TorchTrainer.fit() --- worker -----------------+--> checkpoints in the
       |------ thread DR --- TorchTrainer.fit() --- worker -----------------'    store's train-runs/
       |                                              |
       `-- display <-- StepBoard actor <--------------'  steps, sent without waiting
           trackers

With `training.mode: fused` there is one thread and one worker, which holds the base once; and a
training may have several workers, which share the sequences of each step. How many trainings run at
once is decided by `lorid.distributed.placement`; apart from that, nothing waits for another role. A
role that fails does not stop the others: what they finish is published, and the next run trains
only what is missing. `report` is a barrier and throttles, so workers report at checkpoints only; a
worker that dies goes on from its newest checkpoint. What no retry can mend is found before Ray is
asked for anything (`lorid.training.checks`), or said by the worker to the board, and is not
retried. What a worker does is `lorid.distributed.training_worker`.
"""

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray
from ray.train import CheckpointConfig, FailureConfig, ScalingConfig
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lorid.artifacts.store import open_store
from lorid.artifacts.triples import Source, identify_base
from lorid.config import RunConfig
from lorid.distributed.checkpoints import checkpoint_storage, opened, prune
from lorid.distributed.cluster import alive_nodes, nodes_to_come, only_errors
from lorid.distributed.failures import root_cause
from lorid.distributed.opening import Announce
from lorid.distributed.placement import Demand, Placement, place
from lorid.distributed.progress import StepBoard, StepRow
from lorid.distributed.room import waits_said
from lorid.distributed.saving import SaveNotes, saving_when_interrupted
from lorid.distributed.training_display import TrainingDisplay
from lorid.distributed.training_worker import Board, train_in_worker
from lorid.errors import TrainingError, one_line
from lorid.method.roles import Role
from lorid.training.adapter_files import Origin, complete_adapter
from lorid.training.loop import ADAPTER_FOLDER, BEST_FOLDER
from lorid.training.track import METRICS_FILE
from lorid.training.trackers import TrackedRun, Trackers


@dataclass(frozen=True, kw_only=True)
class RoleJob:
    """One role to train: its name in Ray Train, and what to do with the finished files."""

    role: Role
    run_name: str
    publish: Callable[[Path, Mapping[str, Any]], None]


def train_roles(
    config: RunConfig,
    *,
    jobs: Sequence[RoleJob],
    data: Source,
    knowledge: Source,
    announce: Announce,
) -> None:
    """Train the roles, at once or fused, publishing each as its run finishes.

    What no retry can mend has been looked for before (`lorid.training.checks`).

    Raises:
        ResourceError: the cluster will never have room for one training; nothing was started.
        TrainingError: one or more roles failed; the others are published.
    """
    training = config.training
    only_errors("ray.train")
    groups = [list(jobs)] if training.mode == "fused" else [[job] for job in jobs]
    placement = _placement(config, num_trainings=len(groups))
    announce(f"  train: {placement.why}")
    gate = threading.Semaphore(placement.at_once)
    # Beside the driver: a worker's node may go.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = cast("Any", ray.remote(num_cpus=0)(StepBoard))
    board = actor.options(scheduling_strategy=here).remote()
    failures: dict[Role, Exception] = {}
    base = identify_base(config.student)
    origin = Origin(config=config, base=base, knowledge=knowledge, data=data)

    def run(group: Sequence[RoleJob]) -> None:
        with gate:
            try:
                failures.update(
                    _train_group(
                        group,
                        origin=origin,
                        board=board,
                        num_gpus=placement.num_gpus,
                    )
                )
            except Exception as error:
                failures.update({job.role: error for job in group})

    # Daemon threads: an interrupted driver must not wait for a fit() that nobody wants any more.
    threads = [
        threading.Thread(target=run, args=(group,), name=_group_name(group), daemon=True)
        for group in groups
    ]

    def running() -> set[Role]:
        lives = zip(groups, threads, strict=True)
        return {job.role for group, thread in lives if thread.is_alive() for job in group}

    with (
        TrainingDisplay() as display,
        Trackers(training.trackers, runs=_tracked(config, jobs), warn=display.say) as trackers,
        waits_said(display.say),
        saving_when_interrupted(board, running=running, say=display.say),
    ):
        follower = _Follower(board, display=display, trackers=trackers)
        for thread in threads:
            thread.start()
        while running():
            follower.look()
            time.sleep(0.5)
        follower.look()
    if failures:
        logs = cast("dict[str, str]", ray.get(board.read_logs.remote()))
        raise _explained(failures, logs) from next(iter(failures.values()))


def _placement(config: RunConfig, *, num_trainings: int) -> Placement:
    training = config.training
    demand = Demand(
        num_trainings=num_trainings,
        num_workers=training.num_workers,
        num_cpus=training.num_cpus,
        num_gpus=training.num_gpus,
        min_gpu_share=training.min_gpu_share,
    )
    return place(demand, now=alive_nodes(), to_come=nodes_to_come())


def _group_name(group: Sequence[RoleJob]) -> str:
    """A group's name in Ray Train: the same roles with the same inputs go on where they were."""
    if len(group) == 1:
        return group[0].run_name
    digest = hashlib.sha256(" ".join(job.run_name for job in group).encode()).hexdigest()[:12]
    return f"{group[0].run_name.partition('-' + group[0].role)[0]}-fused-{digest}"


def _resources(config: RunConfig, num_gpus: float) -> dict[str, float]:
    """What one worker asks of Ray."""
    asked = {"CPU": config.training.num_cpus, "GPU": num_gpus}
    return {name: count for name, count in asked.items() if count} or {"CPU": 0}


def _train_group(
    group: Sequence[RoleJob],
    *,
    origin: Origin,
    board: Board,
    num_gpus: float,
) -> dict[Role, Exception]:
    """Train and publish; returns the roles that their worker gave up, and why."""
    config, training, name = origin.config, origin.config.training, _group_name(group)
    prune(config.store, name)
    trainer = TorchTrainer(
        train_in_worker,
        train_loop_config={
            "config": config.model_dump_json(),
            "roles": [str(job.role) for job in group],
            "knowledge_address": origin.knowledge.address,
            "board": board,
        },
        scaling_config=ScalingConfig(
            num_workers=training.num_workers,
            use_gpu=num_gpus > 0,
            resources_per_worker=_resources(config, num_gpus),
        ),
        run_config=RayRunConfig(
            name=name,
            **checkpoint_storage(config.store),
            failure_config=FailureConfig(max_failures=training.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=[SaveNotes(board)],
        ),
    )
    result = trainer.fit()
    prune(config.store, name)
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
                details = (result.metrics or {})[job.role]
                with tempfile.TemporaryDirectory() as clean:
                    _adapter_files(folder / job.role, wanted, into=Path(clean))
                    complete_adapter(Path(clean), origin=origin, role=job.role, details=details)
                    job.publish(Path(clean), details)
    return failures


def _adapter_files(trained: Path, wanted: str, *, into: Path) -> None:
    """The checkpoint also holds optimizer state: only adapter and metrics are the artifact."""
    shutil.copytree(trained / wanted, into, dirs_exist_ok=True)
    shutil.copy(trained / METRICS_FILE, into)


def _tracked(config: RunConfig, jobs: Sequence[RoleJob]) -> dict[str, TrackedRun]:
    """The roles' trainings as trackers know them."""
    settings = config.training.model_dump(mode="json", exclude={"start_from"})
    store = open_store(config.store)
    return {
        str(job.role): TrackedRun(
            name=job.run_name,
            group=config.name,
            settings={"role": str(job.role), "student": config.student.path, **settings},
            store=store,
        )
        for job in jobs
    }


class _Follower:
    """Takes what is new from the board to the display and the trackers."""

    def __init__(self, board: Board, *, display: TrainingDisplay, trackers: Trackers) -> None:
        self.board, self.display, self.trackers = board, display, trackers
        self.seen: dict[str, int] = {}
        self.told: dict[str, str] = {}

    def look(self) -> None:
        """Once; cheap to call often."""
        rows, notes = cast(
            "tuple[list[StepRow], dict[str, str]]", ray.get(self.board.read.remote(self.seen))
        )
        for role, note in notes.items():
            if self.told.get(role) != note:
                self.display.say(f"{role}: {note}")
        self.told = notes
        if rows:
            self.seen |= {row["role"]: row["step"] for row in rows}
            self.display.show(rows)
            self.trackers.log(rows)


def _explained(failures: Mapping[Role, Exception], logs: Mapping[str, str]) -> TrainingError:
    causes = {role: root_cause(error) for role, error in failures.items()}
    roles_by_text: dict[str, list[Role]] = {}
    for role, cause in causes.items():
        log = f" (log: {logs[role]})" if role in logs else ""
        roles_by_text.setdefault(one_line(cause, max_chars=300) + log, []).append(role)
    lines = [f"{', '.join(roles)}: {text}" for text, roles in roles_by_text.items()]
    error = TrainingError("not trained: " + "; ".join(lines) + "; run again to resume")
    error.exit_code = max(getattr(cause, "exit_code", 1) for cause in causes.values())
    return error

"""Trackers: what shows loss curves while a run goes on. TensorBoard's event files, wandb, MLflow.

    with Trackers(("tensorboard", "wandb"), runs=runs, warn=print) as trackers:
        trackers.log(rows)          # steps of any role, in order; neither waits nor raises

Each tracker works in a thread of its own. One that fails is named in one warning and left out from
then on: metrics.jsonl has every step in any case. Steps that a tracker has from an earlier attempt
are not logged again: wandb and MLflow are asked for the last one, and TensorBoard's files, which
nobody can ask, are written anew. Servers and keys come from the trackers' own environment.
"""

import os
import queue
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

from lorid.artifacts.local import LocalStore
from lorid.artifacts.store import ArtifactStore
from lorid.errors import ConfigError, one_line
from lorid.sections import TrackerName

PACKAGES: dict[TrackerName, str] = {
    "tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow",
}  # fmt: skip
TENSORBOARD_FOLDER = "tensorboard"
PROJECT = "lorid"
SECONDS_BETWEEN_UPLOADS = 30.0
SECONDS_TO_CLOSE = 60.0
SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
GIB = 1024**3
Row = Mapping[str, Any]  # a StepMetrics


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One role's training; `name` stays the same when it is resumed, and is no other's."""

    name: str
    group: str
    settings: Mapping[str, Any]
    store: ArtifactStore


class Tracker(Protocol):
    """One role's training in one tracker."""

    def log(self, rows: Sequence[Row]) -> None:
        """Take in steps, in order; those that are known already are passed over."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Find what is missing before anything starts.

    Raises:
        ConfigError: a tracker's package or key is not there.
    """
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"training.trackers: {name} is not installed; pip install {PACKAGES[name]}, "
                "or take it out of training.trackers"
            )
    if "wandb" in names and os.environ.get("WANDB_MODE", "online") in ("online", "shared"):
        import wandb  # pyright: ignore[reportMissingImports]

        if not wandb.api.api_key:
            raise ConfigError(
                "training.trackers: wandb has no key; set WANDB_API_KEY, or WANDB_MODE=offline"
            )


def values_of(row: Row) -> dict[str, float]:
    """A step's figures by the names that trackers show."""
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_s", "supervised_tokens_per_s")
    found = {f"train/{name}": float(row[name]) for name in names}
    found["train/memory_gib"] = row["memory_bytes"] / GIB
    if row["validation_loss"] is not None:
        found["validation/loss"] = float(row["validation_loss"])
    return found


class Trackers:
    """The trackers of a driver, over all of its roles."""

    def __init__(
        self,
        names: Sequence[TrackerName],
        *,
        runs: Mapping[str, TrackedRun],
        warn: Callable[[str], None],
    ) -> None:
        self.threads = [_TrackerThread(name, runs=runs, warn=warn) for name in dict.fromkeys(names)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self.threads:
            thread.rows.put(None)
        end = time.monotonic() + SECONDS_TO_CLOSE
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                thread.warn(f"{thread.name} does not answer; what it has may not be complete")

    def log(self, rows: Sequence[Row]) -> None:
        """Hand on steps."""
        for thread in self.threads:
            thread.rows.put(rows)


class _TrackerThread(threading.Thread):
    """One kind of tracker: a run for each role that has steps."""

    def __init__(
        self, name: TrackerName, *, runs: Mapping[str, TrackedRun], warn: Callable[[str], None]
    ) -> None:
        # A daemon: a server that is away must not keep a driver that has finished.
        super().__init__(name=name, daemon=True)
        self.kind: TrackerName = name
        self.runs, self.warn = runs, warn
        self.rows: queue.SimpleQueue[Sequence[Row] | None] = queue.SimpleQueue()
        self.open: dict[str, Tracker] = {}

    def run(self) -> None:
        """Until None comes, or something fails."""
        try:
            while (rows := self.rows.get()) is not None:
                for role in dict.fromkeys(row["role"] for row in rows):
                    if role not in self.open:
                        self.open[role] = TRACKERS[self.kind](self.runs[role])
                    self.open[role].log([row for row in rows if row["role"] == role])
            for tracker in self.open.values():
                tracker.close()
        except Exception as error:  # whatever a tracker raises is not training's concern
            cause = without_secrets(f"{type(error).__name__}: {one_line(error, max_chars=200)}")
            self.warn(f"{self.kind} is left out: {cause}; metrics.jsonl has every step")


def without_secrets(text: str) -> str:
    """The text without passwords in addresses, and without the trackers' keys."""
    text = re.sub(r"//[^/\s@]+@", "//", text)
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


class TensorBoardTracker:
    """Event files in the store's `tensorboard/RUN`, in S3 too."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        self.store, self.prefix = run.store, f"{TENSORBOARD_FOLDER}/{run.name}/"
        for key in self.store.list(self.prefix):
            self.store.remove(key)
        self.is_local = isinstance(self.store, LocalStore)
        self.folder = (
            self.store.root / self.prefix
            if isinstance(self.store, LocalStore)
            else Path(tempfile.mkdtemp(prefix="lorid-tensorboard-"))
        )
        self.writer = SummaryWriter(logdir=str(self.folder), flush_secs=10)
        self.uploaded = time.monotonic()

    def log(self, rows: Sequence[Row]) -> None:
        """See `Tracker.log`; the files were begun anew, so there is nothing to pass over."""
        for row in rows:
            for name, value in values_of(row).items():
                self.writer.add_scalar(name, value, global_step=row["step"])
        if time.monotonic() - self.uploaded > SECONDS_BETWEEN_UPLOADS:
            self.writer.flush()
            self._upload()

    def close(self) -> None:
        """See `Tracker.close`."""
        # A flush leaves out what still waits in the writer's queue; closing writes that too.
        self.writer.close()
        self._upload()
        if not self.is_local:
            shutil.rmtree(self.folder)

    def _upload(self) -> None:
        if not self.is_local:
            for path in sorted(self.folder.iterdir()):
                self.store.write(self.prefix + path.name, path.read_bytes())
        self.uploaded = time.monotonic()


class WandbTracker:
    """A run of wandb, online or (WANDB_MODE=offline) in the folder `wandb`."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=run.group,
            id=run.name,
            name=run.name,
            config=dict(run.settings),
            resume="allow",
            # Three roles are three runs of one process.
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, disable_code=True, disable_git=True,
                x_disable_stats=True, x_disable_machine_info=True,
            ),
        )  # fmt: skip

    def log(self, rows: Sequence[Row]) -> None:
        """See `Tracker.log`."""
        for row in rows:
            if row["step"] >= self.run.starting_step:
                self.run.log(values_of(row), step=row["step"])

    def close(self) -> None:
        """See `Tracker.close`."""
        self.run.finish()


class MlflowTracker:
    """A run of MLflow, on the server or in the folder that MLFLOW_TRACKING_URI names."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        self.client = MlflowClient()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self.client.create_experiment(experiment)
        found = self.client.search_runs([number], f"tags.`lorid.run` = '{run.name}'", max_results=1)
        self.last = 0
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            history = self.client.get_metric_history(self.id, "train/loss")
            self.last = max((metric.step for metric in history), default=0)
            return
        tags = {"lorid.run": run.name, "lorid.group": run.group}
        self.id = self.client.create_run(number, run_name=run.name, tags=tags).info.run_id
        params = [Param(name, str(value)[:500]) for name, value in run.settings.items()]
        self.client.log_batch(self.id, params=params)

    def log(self, rows: Sequence[Row]) -> None:
        """See `Tracker.log`."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(time.time() * 1000)
        for row in rows:
            if row["step"] > self.last:
                metrics = [Metric(k, v, now, row["step"]) for k, v in values_of(row).items()]
                self.client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        """See `Tracker.close`."""
        self.client.set_terminated(self.id)


TRACKERS: dict[TrackerName, Callable[[TrackedRun], Tracker]] = {
    "tensorboard": TensorBoardTracker, "wandb": WandbTracker, "mlflow": MlflowTracker,
}  # fmt: skip

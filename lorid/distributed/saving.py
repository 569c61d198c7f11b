"""A training that is stopped saves a checkpoint first, as long as the stopper waits.

    with saving_when_interrupted(board):               # in the driver, around its wait
    RayRunConfig(callbacks=[SaveNotes(board, roles)])  # in Ray Train's controller
    is_asked = ray.get(board.post.remote(...))         # in the worker, with its metrics

The driver asks the board, workers hear of it with the next metrics that they post, and save. Saved
is what Ray Train has written down as the newest checkpoint, not what a worker has uploaded. Roles
before their first step and finished ones have nothing to save.

`ray job stop` waits RAY_JOB_STOP_WAIT_TIME_S, three seconds unless the head's environment says
more. Ctrl-C waits half a minute, and a second one does not wait.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import Checkpoint, UserCallback

INTERACTIVE_GRACE_S = 30.0
RAY_GRACE_S = 3.0
# What the driver needs for itself before it is killed.
LAST_S = 0.5


class SaveNotes(UserCallback):
    """Tells the board, from Ray Train's controller, what is saved for good."""

    def __init__(self, board: Any, roles: Sequence[str]) -> None:
        self.board, self.roles = board, list(roles)

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Called once the checkpoint is part of the run's own record."""
        if checkpoint is not None:
            self.board.note_saved.remote(self.roles)


@contextmanager
def saving_when_interrupted(board: Any) -> Iterator[None]:
    """On KeyboardInterrupt, let workers save before it goes on; a second one ends the wait."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(RayError):
            _save(board, deadline=time.monotonic() + grace_s())
        raise


def grace_s() -> float:
    """How long this process may take to stop, after it has been asked to."""
    if said := os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", ""):
        with suppress(ValueError):
            return max(0.0, float(said) - LAST_S)
    is_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return RAY_GRACE_S - LAST_S if is_job else INTERACTIVE_GRACE_S


def _save(board: Any, *, deadline: float) -> None:
    def left() -> float:
        return max(0.1, deadline - time.monotonic())

    unsaved: list[str] = ray.get(board.ask_to_save.remote(), timeout=left())
    if unsaved:
        print(f"train: saving {', '.join(unsaved)} before the end", file=sys.stderr, flush=True)
    while unsaved and time.monotonic() < deadline:
        time.sleep(0.1)
        unsaved = ray.get(board.read_unsaved.remote(), timeout=left())
    if unsaved:
        text = f"train: no time to save {', '.join(unsaved)}; they go on from their last checkpoint"
        print(text, file=sys.stderr, flush=True)

"""A training that is stopped saves a checkpoint first, as long as the stopper waits.

    with saving_when_interrupted(board, running=..., say=display.say):   # around the driver's wait
    RunConfig(callbacks=[SaveNotes(board)])                              # in Ray Train's controller

The driver asks the board, the first rank hears of it in the reply to its next steps, and all ranks
save at the same step. Saved is what Ray Train has written down as the newest checkpoint, not what a
worker has uploaded. Roles before their first step and finished ones have nothing to save.

`ray job stop` waits RAY_JOB_STOP_WAIT_TIME_S, three seconds unless the head's environment says
more. Ctrl-C waits half a minute, and a second one does not wait.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import Checkpoint, UserCallback

from lorid.method.roles import Role

INTERACTIVE_GRACE_S = 30.0
RAY_GRACE_S = 3.0
# What the driver needs for itself before it is killed.
LAST_S = 0.5
SECONDS_BETWEEN_LOOKS = 0.1


class SaveNotes(UserCallback):
    """Tells the board, from Ray Train's controller, what is saved for good."""

    def __init__(self, board: Any) -> None:
        self.board = board

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Called once the checkpoint is part of the run's own record; ranks report the same."""
        if checkpoint is not None:
            steps = {role: summary["step"] for role, summary in metrics[0].items()}
            self.board.note_saved.remote(steps)


@contextmanager
def saving_when_interrupted(
    board: Any, *, running: Callable[[], Collection[Role]], say: Callable[[str], None]
) -> Iterator[None]:
    """On KeyboardInterrupt, let running roles save before it goes on; a second one does not wait.

    A line a role says what became of it.
    """
    try:
        yield
    except KeyboardInterrupt:
        deadline = time.monotonic() + grace_s()
        with suppress(RayError):  # the cluster may be what ends
            _save(_Asked(board, deadline), running=running, say=say)
        raise


def grace_s() -> float:
    """How long this process may take to stop, after it has been asked to."""
    if said := os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", ""):
        with suppress(ValueError):
            return max(0.0, float(said) - LAST_S)
    is_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    return RAY_GRACE_S - LAST_S if is_job else INTERACTIVE_GRACE_S


class _Asked:
    """The board, asked by a driver that has so long."""

    def __init__(self, board: Any, deadline: float) -> None:
        self.board, self.deadline = board, deadline

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.deadline

    def read(self, method: str) -> Mapping[str, int]:
        left = max(SECONDS_BETWEEN_LOOKS, self.deadline - time.monotonic())
        return ray.get(getattr(self.board, method).remote(), timeout=left)


def _save(
    asked: _Asked, *, running: Callable[[], Collection[Role]], say: Callable[[str], None]
) -> None:
    wanted = unsaved = asked.read("ask_to_save")
    while set(unsaved) & set(running()) and not asked.is_over:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        unsaved = asked.read("read_unsaved")
    saved = asked.read("read_saved")
    for role, step in wanted.items():
        if saved.get(role, 0) >= step:
            say(f"{role}: saved at step {saved[role]}")
        else:
            last = f"step {saved[role]}" if role in saved else "its last checkpoint"
            say(f"{role}: not saved at step {step}, goes on from {last}")

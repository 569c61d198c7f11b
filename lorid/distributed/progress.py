"""One display for long work: bars on a terminal, plain lines elsewhere.

    with Progress("knowledge") as progress:
        progress.update("teacher", done=64, total=1600, note="2 set aside")

`StepBoard` is the actor to which training workers send their newest metrics, and why they gave up;
the driver reads it.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Track:
    """One line of the display."""

    first_seen: float = 0.0
    first_done: int = 0
    printed: float = 0.0
    done: int = 0
    task: TaskID | None = None


@dataclass
class Progress:
    """Shows how far each named piece of a stage is."""

    stage: str
    console: Console = field(default_factory=lambda: Console(file=sys.stderr))
    tracks: dict[str, Track] = field(default_factory=dict)
    bars: RichProgress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bars = RichProgress(
                TextColumn("{task.description:<20}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def update(self, name: str, *, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` are finished; cheap to call often."""
        track = self.tracks.setdefault(name, Track())
        if done and not track.first_done:
            # Engines load before the first is done; that time says nothing about what is left.
            track.first_seen, track.first_done = time.monotonic(), done
        if self.bars is not None:
            if track.task is None:
                track.task = self.bars.add_task(name, total=total, note=note)
            self.bars.update(track.task, completed=done, total=total, note=note)
        else:
            self._print_line(name, track, done=done, total=total, note=note)
        track.done = done

    def _print_line(self, name: str, track: Track, *, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        is_finished = done >= total and track.done < total
        if not is_finished and now - track.printed < SECONDS_BETWEEN_LINES:
            return
        if done == track.done and track.printed:
            return
        track.printed = now
        since_first = done - track.first_done
        seconds = (now - track.first_seen) / since_first * (total - done) if since_first else None
        left = "starting" if seconds is None else f"{seconds:.0f} s left"
        text = f"{self.stage}: {name} {done}/{total}  {left}  {note}".rstrip()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class StepBoard:
    """Holds the newest metrics of each role; an actor of its own, started by the driver."""

    def __init__(self) -> None:
        self.newest: dict[str, dict[str, float | int | str]] = {}
        self.given_up: dict[str, str] = {}
        self.unsaved: set[str] | None = None

    def post(self, role: str, metrics: Mapping[str, float | int | str]) -> bool:
        """Replace a role's newest metrics; says whether it is asked to save."""
        self.newest[str(role)] = dict(metrics)
        return self.unsaved is not None and str(role) in self.unsaved

    def ask_to_save(self) -> list[str]:
        """From now on roles are asked to save, until they have; these are they."""
        self.unsaved = {
            role
            for role, newest in self.newest.items()
            if newest["step"] != newest["num_steps"] and role not in self.given_up
        }
        return self.read_unsaved()

    def note_saved(self, roles: Sequence[str]) -> None:
        """A checkpoint with these roles is part of their run."""
        if self.unsaved is not None:
            self.unsaved -= set(roles)

    def read_unsaved(self) -> list[str]:
        """Roles that are asked to save and have not."""
        return sorted(self.unsaved or ())

    def read(self) -> dict[str, dict[str, float | int | str]]:
        """The newest metrics by role."""
        return self.newest

    def give_up(self, role: str, reason: str) -> None:
        """Note that a role's worker stopped for a reason that no retry mends."""
        self.given_up[str(role)] = reason

    def read_given_up(self) -> dict[str, str]:
        """The reasons by role."""
        return self.given_up

"""One display for long work: bars on a terminal, plain lines elsewhere.

    with Progress("knowledge") as progress:
        progress.update("teacher", done=64, total=1600, note="2 set aside")

`StepBoard` is the actor to which training workers send their steps, and why they gave up; the
driver reads it, and asks by it for a checkpoint before the end (`lorid.distributed.saving`).
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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

if TYPE_CHECKING:
    from lorid.training.track import RoleTrack

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_POSTS = 0.5
# How long a worker may wait for the board's reply: a share of the time since its last post.
SHARE_FOR_REPLIES, MOST_FOR_REPLIES_S = 0.01, 1.0
StepRow = Mapping[str, Any]  # a StepMetrics as it travels


@dataclass
class Track:
    """One line of the display."""

    first_seen: float = 0.0
    first_done: int = 0
    printed: float = 0.0
    done: int = 0
    task: TaskID | None = None

    def note(self, done: int) -> None:
        """Remember when the first was done."""
        if done and not self.first_done:
            # Engines load before the first is done; that time says nothing about what is left.
            self.first_seen, self.first_done = time.monotonic(), done

    def seconds_left(self, *, done: int, total: int) -> float | None:
        """At the pace since the first was done; None before there is one."""
        since_first = done - self.first_done
        if not since_first:
            return None
        return (time.monotonic() - self.first_seen) / since_first * (total - done)


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
        track.note(done)
        if self.bars is not None:
            if track.task is None:
                track.task = self.bars.add_task(name, total=total, note=note)
            self.bars.update(track.task, completed=done, total=total, note=note)
        else:
            self._print_line(name, track, done=done, total=total, note=note)
        track.done = done

    def say(self, text: str) -> None:
        """A line of its own."""
        text = f"{self.stage}: {text}"
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _print_line(self, name: str, track: Track, *, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        is_finished = done >= total and track.done < total
        if not is_finished and now - track.printed < SECONDS_BETWEEN_LINES:
            return
        if done == track.done and track.printed:
            return
        track.printed = now
        seconds = track.seconds_left(done=done, total=total)
        left = "starting" if seconds is None else f"{seconds:.0f} s left"
        self.say(f"{name} {done}/{total}  {left}  {note}".rstrip())


class StepBoard:
    """Holds the steps of each role; an actor of its own, started by the driver.

    Workers post a role's steps in order, and all of them again when they go on from a checkpoint:
    each is kept once.
    """

    def __init__(self) -> None:
        self.steps: dict[str, list[StepRow]] = {}
        self.notes: dict[str, str] = {}
        self.given_up: dict[str, str] = {}
        self.logs: dict[str, str] = {}
        self.saved: dict[str, int] = {}
        self.wanted: dict[str, int] = {}
        self.num_wishes = 0

    def began(self, role: str, log: str) -> None:
        """Note where the newest worker of a role writes its log."""
        self.logs[str(role)] = log

    def read_logs(self) -> dict[str, str]:
        """The places by role."""
        return self.logs

    def post(self, rows: Sequence[StepRow]) -> int:
        """Add the steps that are new; answers how often the driver has asked to save so far."""
        for row in rows:
            known = self.steps.setdefault(str(row["role"]), [])
            if row["step"] == len(known) + 1:
                known.append(row)
        return self.num_wishes

    def ask_to_save(self) -> dict[str, int]:
        """Ask for what is not saved: the roles that have steps to lose, and their newest."""
        self.num_wishes += 1
        self.wanted = {role: len(rows) for role, rows in self.steps.items()}
        return self.read_unsaved()

    def note_saved(self, steps: Mapping[str, int]) -> None:
        """Note that a checkpoint of these steps is part of its run for good."""
        for role, step in steps.items():
            self.saved[str(role)] = max(step, self.saved.get(str(role), 0))

    def read_unsaved(self) -> dict[str, int]:
        """The roles that were asked to save and have not, with the step that they had then."""
        return {
            role: step
            for role, step in self.wanted.items()
            if self.saved.get(role, 0) < step and role not in self.given_up
        }

    def read_saved(self) -> dict[str, int]:
        """The newest step by role that is saved, since this board is there."""
        return self.saved

    def note(self, role: str, text: str) -> None:
        """Keep a line that the user should see."""
        self.notes[str(role)] = text

    def read(self, after: Mapping[str, int]) -> tuple[list[StepRow], dict[str, str]]:
        """The steps that come after those, and every role's note."""
        rows = [row for role, rows in self.steps.items() for row in rows[after.get(role, 0) :]]
        return rows, self.notes

    def give_up(self, role: str, reason: str) -> None:
        """Note that a role's worker stopped for a reason that no retry mends."""
        self.given_up[str(role)] = reason

    def read_given_up(self) -> dict[str, str]:
        """The reasons by role."""
        return self.given_up


class StepPoster:
    """A worker's side of the board: sends the steps that it has not sent, twice a second.

    Workers of one training have the same steps: all but one are silent. `take` reads a reply, as
    `ray.get` with a timeout does, or returns None when it is not there yet.
    """

    def __init__(
        self,
        board: Any,
        tracks: "Mapping[Any, RoleTrack]",
        *,
        take: Callable[[Any, float], int | None] | None = None,
        is_silent: bool = False,
    ) -> None:
        self.board, self.tracks, self.is_silent = board, tracks, is_silent
        self.take = take
        self.sent = dict.fromkeys(tracks, 0)
        self.posted, self.patience = 0.0, 0.0
        self.reply: Any = None
        self.num_wishes = 0

    def post(self, *, at_once: bool = False) -> Any:
        """Send what is new, if it is time or `at_once`; returns Ray's reference, to be waited for.

        A worker that goes on from a checkpoint has sent nothing, so it begins with step 1.
        """
        now = time.monotonic()
        since = now - self.posted
        if self.is_silent or (since < SECONDS_BETWEEN_POSTS and not at_once):
            return None
        rows = [
            asdict(metrics)
            for role, track in self.tracks.items()
            for metrics in track.metrics[self.sent[role] :]
        ]
        self.sent = {role: len(track.metrics) for role, track in self.tracks.items()}
        self.patience, self.posted = min(SHARE_FOR_REPLIES * since, MOST_FOR_REPLIES_S), now
        self.reply = self.board.post.remote(rows)
        return self.reply

    def take_wish(self) -> bool:
        """Whether the board asks to save, once for each time that it does."""
        if self.reply is None or self.take is None:
            return False
        # Steps may take a minute: what was asked during the last one is heard before the next.
        num_wishes, self.patience = self.take(self.reply, self.patience), 0.0
        if num_wishes is None:
            return False
        is_new = num_wishes > self.num_wishes
        self.reply, self.num_wishes = None, num_wishes
        return is_new

"""What the driver shows of three trainings: one table on a terminal, plain lines elsewhere.

with TrainingDisplay() as display:
    display.show(rows)        # new steps of any role, in order

role                   step  loss       lr  grad   tok/s  supervised   memory  left
intuitive_reasoner  120/400 0.612  4.9e-05  0.81  12,345       8,123  1.2 GiB  1:23
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lorid.distributed.progress import Progress, StepRow, Track
from lorid.method.roles import Role

GIB = 1024**3
LEGEND = (
    ", ".join(f"{role.short} {role}" for role in Role) + "; tok/s: all (supervised); peak memory"
)


class TrainingDisplay:
    """The newest step of each role."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self.newest: dict[Role, StepRow] = {}
        self.tracks: dict[Role, Track] = {}
        self.lines = Progress("train", console=self.console)
        self.live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=2)
            self.live.start()
        else:
            self.say(LEGEND)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        text = f"train: {text}"
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, rows: Sequence[StepRow]) -> None:
        """Take in new steps; cheap to call often."""
        for row in rows:
            self.newest[Role(row["role"])] = row
        for role in dict.fromkeys(Role(row["role"]) for row in rows):
            newest = self.newest[role]
            self.tracks.setdefault(role, Track()).note(newest["step"])
            if self.live is None:
                self.lines.update(
                    role.short,
                    done=newest["step"],
                    total=newest["num_steps"],
                    note=note_of(newest),
                )
        if self.live is not None and rows:
            self.live.update(self._table())

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("role")
        validates = any(row["validation_loss"] is not None for row in self.newest.values())
        names = ["step", "loss", "lr", "grad", "tok/s", "supervised", "memory", "left"]
        if validates:
            names.insert(2, "held out")
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for role in (one for one in Role if one in self.newest):
            cells = self._cells(role)
            if not validates:
                del cells["held out"]
            table.add_row(str(role), *cells.values())
        return table

    def _cells(self, role: Role) -> dict[str, str]:
        row = self.newest[role]
        done, total = row["step"], row["num_steps"]
        left = self.tracks[role].seconds_left(done=done, total=total)
        held_out = row["validation_loss"]
        return {
            "step": f"{done}/{total}",
            "loss": f"{row['loss']:.3f}",
            "held out": "" if held_out is None else f"{held_out:.3f}",
            "lr": f"{row['learning_rate']:.1e}",
            "grad": f"{row['grad_norm']:.2f}",
            "tok/s": f"{row['tokens_per_s']:,.0f}",
            "supervised": f"{row['supervised_tokens_per_s']:,.0f}",
            "memory": f"{row['memory_bytes'] / GIB:.1f} GiB",
            "left": "" if left is None else str(timedelta(seconds=round(left))),
        }


def note_of(row: StepRow) -> str:
    """One step as the end of a plain line."""
    held_out = row["validation_loss"]
    parts = [
        f"loss {row['loss']:.3f}" + ("" if held_out is None else f" held out {held_out:.3f}"),
        f"lr {row['learning_rate']:.1e}",
        f"grad {row['grad_norm']:.2f}",
        f"{row['tokens_per_s']:,.0f} ({row['supervised_tokens_per_s']:,.0f}) tok/s",
        f"{row['memory_bytes'] / GIB:.1f} GiB",
    ]
    return "  ".join(parts)

"""How far a large transfer is: a bar on a terminal, plain lines elsewhere.

    with transfer_shown("storing adapter/x", Amount(num_files=3, num_bytes=10**9)) as advance:
        advance(num_bytes)

Transfers below `SHOWN_FROM_BYTES` show nothing. `advance` may be called from any thread.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

SHOWN_FROM_BYTES = 50 * 10**6
SECONDS_BETWEEN_LINES = 10.0
_MB = 10**6


@dataclass(frozen=True, kw_only=True)
class Amount:
    """What is to be transferred."""

    num_files: int
    num_bytes: int


@contextmanager
def transfer_shown(label: str, amount: Amount) -> Iterator[Callable[[int], None]]:
    """A display for the duration of the block; gives the function that moves it on."""
    if amount.num_bytes <= SHOWN_FROM_BYTES:
        yield lambda num_bytes: None
        return
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        yield _Lines(label=label, amount=amount, show=console.print).advance
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        task = bars.add_task(label, total=amount.num_bytes)
        yield lambda num_bytes: bars.advance(task, num_bytes)


@dataclass
class _Lines:
    label: str
    amount: Amount
    show: Callable[[str], None]
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, num_bytes: int) -> None:
        """Count more bytes, and say so now and then."""
        with self.lock:
            before, self.done = self.done, self.done + num_bytes
            total, now = self.amount.num_bytes, time.monotonic()
            is_finished = before < total <= self.done
            if not is_finished and now - self.shown < SECONDS_BETWEEN_LINES:
                return
            self.shown = now
            seconds = now - self.started
            left = seconds / self.done * (total - self.done) if self.done > 0 else 0.0
            ending = f"done in {seconds:.0f} s" if is_finished else f"{left:.0f} s left"
            self.show(f"{self.label}: {self.done / _MB:.0f}/{total / _MB:.0f} MB  {ending}")

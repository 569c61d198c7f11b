"""The ledger: every response of a teacher, on disk or in the bucket before it is used.

    ledger = Ledger.opened(store, name="my-run")
    ledger.find(key)                    # Stored | None
    await ledger.add([stored, ...])     # returns when they are durable

Shards lie under `ledgers/{name}/` in the artifact store and are only ever added to. In a local
folder each writer appends to a file of its own, with one fsync for all that wait; in S3, where
nothing can be appended to, what gathered in 0.2 s (or `UPLOAD_RESPONSES` of them) becomes a
new key, and `merge_ledger` makes many keys one before a run. A line that a crash has torn is passed
over, and takes no other with it. One process writes (the desk's actor), under the run's lease.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from lorid.artifacts.retries import wait_s
from lorid.artifacts.shards import Shard, merge_shards, open_shard, read_lines, shard_keys
from lorid.artifacts.store import Sweepable
from lorid.errors import ArtifactError
from lorid.spool import Spool
from lorid.teacher.base import Reply

UPLOAD_RESPONSES = 64
RETRY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One response: what was asked (by its key), what came, and what it cost.

    `settings` says who was asked and how; `ask` how often the problem was asked by then.
    """

    key: str
    ask: int
    settings: Mapping[str, Any]
    reply: Reply
    cost: float = 0.0
    at: str = ""

    def to_line(self) -> bytes:
        """One line of JSON without its line feed."""
        row = {
            "key": self.key, "at": self.at, "ask": self.ask, "settings": dict(self.settings),
            "cost": self.cost, **self.reply.to_row(),
        }  # fmt: skip
        # ASCII only: no character can be cut in two, and no text can hold half a surrogate pair.
        return json.dumps(row, separators=(",", ":")).encode()

    @classmethod
    def from_line(cls, line: bytes) -> "Stored":
        """The inverse of `to_line`.

        Raises:
            ValueError: the line is torn or something else.
        """
        try:
            row: dict[str, Any] = json.loads(line)
            return cls(
                key=str(row["key"]),
                ask=int(row["ask"]),
                settings=dict(row["settings"]),
                reply=Reply.from_row(row),
                cost=float(row["cost"]),
                at=str(row["at"]),
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no response: {error}") from error


def folder_of(name: str) -> str:
    """Where the shards of a run lie in a store."""
    return f"ledgers/{name}/"


def merge_ledger(store: Sweepable, name: str) -> None:
    """Make many shards of a run's ledger one; to be called while nobody writes."""

    def lines() -> Iterator[bytes]:
        return (line for _, line in Ledger.opened(store, name=name).lines.in_order())

    merge_shards(store, shard_keys(store, folder_of(name)), lines=lines)


def _spooled() -> Spool[bytes]:
    return Spool(dump=bytes, load=bytes)


@dataclass(kw_only=True)
class Ledger:
    """All responses of a run, by key; their lines, some 1 kB each, lie in a temporary file."""

    shard: Shard
    lines: Spool[bytes] = field(default_factory=_spooled)
    cost: float = 0.0
    num_torn: int = 0
    waiting: list[tuple[bytes, asyncio.Future[None]]] = field(default_factory=list)
    flushing: asyncio.Task[None] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    failing_since: float | None = None

    @classmethod
    def opened(cls, store: Sweepable, *, name: str) -> Self:
        """The ledger of that run with all that is in its shards.

        Raises:
            ArtifactError: the store cannot be read.
        """
        ledger = cls(shard=open_shard(store, folder_of(name)))
        for line in read_lines(store, folder_of(name)):
            try:
                ledger._know(Stored.from_line(line), line)
            except ValueError:
                ledger.num_torn += 1
        return ledger

    def find(self, key: str) -> Stored | None:
        """The response to that request, when there was one."""
        line = self.lines.get(key)
        return None if line is None else Stored.from_line(line)

    async def add(self, responses: Sequence[Stored]) -> None:
        """Store responses; returns when a crash cannot lose them any more.

        A store that fails is waited for as long as `LORID_STORE_WAIT_S` says.

        Raises:
            ArtifactError: the store still fails after that time.
        """
        new = [response for response in responses if response.key not in self.lines]
        if not new:
            return
        loop = asyncio.get_running_loop()
        lines = [response.to_line() for response in new]
        waits: list[asyncio.Future[None]] = [loop.create_future() for _ in new]
        self.waiting += zip(lines, waits, strict=True)
        if len(self.waiting) >= UPLOAD_RESPONSES:
            self.wake.set()
        if self.flushing is None or self.flushing.done():
            self.flushing = loop.create_task(self._flush_all())
        results = await asyncio.gather(*waits, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        for response, line in zip(new, lines, strict=True):
            self._know(response, line)

    @property
    def num_waiting(self) -> int:
        """Responses that are not durable yet."""
        return len(self.waiting)

    def _know(self, response: Stored, line: bytes) -> None:
        if self.lines.add(response.key, line):
            self.cost += response.cost

    async def _flush_all(self) -> None:
        while self.waiting:
            if self.shard.delay_s and len(self.waiting) < UPLOAD_RESPONSES:
                self.wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), self.shard.delay_s)
            group, self.waiting = self.waiting, []
            # A line feed first: what a crash tore off before cannot run into these lines.
            content = b"\n" + b"\n".join(line for line, _ in group) + b"\n"
            try:
                await self._append(content)
            except ArtifactError as error:
                for _, wait in group:
                    wait.set_exception(error)
            else:
                for _, wait in group:
                    wait.set_result(None)

    async def _append(self, content: bytes) -> None:
        while True:
            try:
                await asyncio.to_thread(self.shard.append, content)
            except ArtifactError as error:
                if self.shard.waits_itself:
                    raise
                now = time.monotonic()
                if self.failing_since is None:
                    self.failing_since = now
                    print(f"ledger: {error}; waiting for the store", file=sys.stderr, flush=True)
                if now - self.failing_since >= wait_s():
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                self.failing_since = None
                return

"""The log of an evaluation: what each question got, in the store as soon as it is there.

    with AttemptsLog.opened(store, "attempts/my-run/0123456789ab/mutual/") as log:
        log.find("2 + 3 = ?")           # its row, or None: ask
        log.add(row)                    # durable at once in a folder, within `FLUSH_S` in S3

Rows are lines of the attempts-file format, one a question, in shards (`lorid.artifacts.shards`).
What a question is answered depends on its text and not on its id, so a row is found by its
question. Of two rows the one with more rounds counts. Rows lie in a temporary file
(`lorid.spool`), not in memory. Each writer has shards of its own, all of them under the run's
lease.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

from lorid.artifacts.shards import Shard, merge_shards, open_shard, read_lines, shard_keys
from lorid.artifacts.store import ArtifactStore, Sweepable
from lorid.errors import ArtifactError, DataError
from lorid.jsonl import json_line, parse_json
from lorid.method.attempts import LISTS
from lorid.spool import Spool

FLUSH_S = 2.0
FLUSH_ROWS = 64


class AttemptsLog:
    """The rows of a folder of shards, and a shard for new ones."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.lines = Spool[bytes](dump=bytes, load=bytes)
        self.num_torn = 0
        self.waiting: list[bytes] = []
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None

    @classmethod
    def opened(cls, store: Sweepable, folder: str) -> Self:
        """The log of that folder with all that is in its shards; many of them become one.

        Raises:
            ArtifactError: the store cannot be read.
        """
        shards = shard_keys(store, folder)
        log = cls.for_writing(store, folder)
        for line in read_lines(store, folder):
            log._take_in(line)

        def lines() -> Iterator[bytes]:
            return (line for _, line in log.lines.in_order())

        merge_shards(store, shards, lines=lines)
        return log

    @classmethod
    def for_writing(cls, store: ArtifactStore, folder: str) -> Self:
        """The log without what is in it: for one more writer, who only adds."""
        return cls(open_shard(store, folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()

    def __contains__(self, question: str) -> bool:
        return _key(question) in self.lines

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, question: str) -> dict[str, Any] | None:
        """The row of a question, when it was answered."""
        line = self.lines.get(_key(question))
        return None if line is None else cast("dict[str, Any]", json.loads(line))

    def add(self, row: Mapping[str, Any], *, is_logged: bool = False) -> None:
        """Log a row; one that another writer has logged already is only taken in.

        Raises:
            ArtifactError: the store cannot be written.
        """
        line = json_line(dict(row)).encode()
        self._take_in(line.rstrip(b"\n"))
        if is_logged:
            return
        with self.lock:
            self.waiting.append(line)
            if len(self.waiting) >= FLUSH_ROWS or not self.shard.delay_s:
                self._flush()
            elif self.timer is None:
                # Also when no further row comes for long.
                self.timer = threading.Timer(FLUSH_S, self._flush_late)
                self.timer.daemon = True
                self.timer.start()

    def flush(self) -> None:
        """Make durable what is not yet.

        Raises:
            ArtifactError: the store cannot be written.
        """
        with self.lock:
            self._flush()

    def _flush(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.waiting:
            self.shard.append(b"".join(self.waiting))
            self.waiting = []

    def _flush_late(self) -> None:
        # What cannot be written stays, and the next call says why.
        with self.lock, suppress(ArtifactError):
            self._flush()

    def _take_in(self, line: bytes) -> None:
        try:
            row = parse_json(line.decode())
            if not isinstance(row, dict):
                raise DataError("not a row")
            fields = cast("dict[str, Any]", row)
            key, num_rounds = _key(fields["question"]), num_rounds_of(fields)
        except (DataError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            self.num_torn += 1
            return
        known = self.lines.get(key)
        if known is None or num_rounds > num_rounds_of(json.loads(known)):
            self.lines[key] = line


def num_rounds_of(row: Mapping[str, Any]) -> int:
    """How many rounds a row has on the side that has most of them."""
    return max(len(row.get(name, ())) for name in LISTS)


def _key(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:32]

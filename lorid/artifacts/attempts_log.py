"""The log of an evaluation: what each question got, in the store as soon as it is there.

    with AttemptsLog.opened(store, "attempts/my-run/0123456789ab/mutual/") as log:
        log.find("2 + 3 = ?")           # its row, or None: ask
        log.add(row)                    # durable at once in a folder, within `FLUSH_S` in S3

Rows are lines of the attempts-file format, one a question, in shards (`lorid.artifacts.shards`).
What a question is answered depends on its text and not on its id, so a row is found by its
question. Of two rows the one with more rounds counts. Memory holds an index only: the rows lie in a
temporary file. Each writer has shards of its own, all of them under the run's lease.
"""

import hashlib
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from lorid.artifacts.shards import Shard, open_shard, shard_keys
from lorid.artifacts.store import ArtifactStore
from lorid.errors import ArtifactError, DataError
from lorid.jsonl import json_line, parse_json
from lorid.method.attempts import LISTS

FLUSH_S = 2.0
FLUSH_ROWS = 64
MERGE_ABOVE = 200


class AttemptsLog:
    """The rows of a folder of shards, and a shard for new ones."""

    def __init__(self, rows: BinaryIO, shard: Shard) -> None:
        self.rows, self.shard = rows, shard
        self.places: dict[bytes, tuple[int, int, int]] = {}
        self.num_torn = 0
        self.waiting: list[bytes] = []
        self.lock = threading.Lock()
        self.timer: threading.Timer | None = None

    @classmethod
    def opened(cls, store: ArtifactStore, folder: str) -> Self:
        """The log of that folder with all that is in its shards.

        More than `MERGE_ABOVE` of them become one, which is whole before the first of them goes.

        Raises:
            ArtifactError: the store cannot be read.
        """
        shards = shard_keys(store, folder)
        log = cls.for_writing(store, folder)
        for key in shards:
            for line in _lines_of(store, key):
                log._take_in(line)
        if len(shards) > MERGE_ABOVE:
            with tempfile.TemporaryDirectory(prefix="lorid-log-") as temporary:
                whole = Path(temporary) / "merged.jsonl"
                with whole.open("wb") as file:
                    file.writelines(log._read(place) for place in log.places.values())
                store.write(f"{shards[-1].removesuffix('.jsonl')}-merged.jsonl", whole)
            for key in shards:
                store.remove(key)
        return log

    @classmethod
    def for_writing(cls, store: ArtifactStore, folder: str) -> Self:
        """The log without what is in it: for one more writer, who only adds."""
        rows = tempfile.TemporaryFile(prefix="lorid-log-")  # noqa: SIM115 - closed with the log
        return cls(rows, open_shard(store, folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self.rows.close()

    def __contains__(self, question: str) -> bool:
        return _key(question) in self.places

    def __len__(self) -> int:
        return len(self.places)

    def find(self, question: str) -> dict[str, Any] | None:
        """The row of a question, when it was answered."""
        place = self.places.get(_key(question))
        return None if place is None else cast("dict[str, Any]", json.loads(self._read(place)))

    def add(self, row: Mapping[str, Any], *, is_logged: bool = False) -> None:
        """Log a row; one that another writer has logged already is only taken in.

        Raises:
            ArtifactError: the store cannot be written.
        """
        line = json_line(dict(row)).encode()
        self._take_in(line)
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
        known = self.places.get(key)
        if known is None or num_rounds > known[2]:
            self.places[key] = (self.rows.seek(0, 2), len(line), num_rounds)
            self.rows.write(line)

    def _read(self, place: tuple[int, int, int]) -> bytes:
        self.rows.seek(place[0])
        return self.rows.read(place[1])


def num_rounds_of(row: Mapping[str, Any]) -> int:
    """How many rounds a row has on the side that has most of them."""
    return max(len(row.get(name, ())) for name in LISTS)


def _lines_of(store: ArtifactStore, key: str) -> Iterator[bytes]:
    """A shard's lines, their line feeds included; a torn last one has none."""
    with tempfile.TemporaryDirectory(prefix="lorid-log-") as temporary:
        file = Path(temporary) / "shard.jsonl"
        store.read(key, into=file)
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n") and line.strip():
                    yield line


def _key(question: str) -> bytes:
    return hashlib.sha256(question.encode()).digest()[:16]

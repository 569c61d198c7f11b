"""Shards: files of lines in a store that are only ever added to, one writer a shard.

    shard = open_shard(store, "ledgers/my-run/")
    shard.append(b'{"a": 1}\\n')             # durable when it returns
    for line in read_lines(store, "ledgers/my-run/"): ...
    merge_shards(store, keys, lines=...)     # many become one

In a local folder a writer appends to a file of its own; in S3, where nothing can be appended to,
each call makes a new key, so callers gather lines first (`delay_s` says for how long). A crash may
leave the first part of a line: whoever parses lines passes it over.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from lorid.artifacts.at_once import all_at_once, each_at_once
from lorid.artifacts.local import LocalStore
from lorid.artifacts.store import ArtifactStore, Entry, Sweepable

UPLOAD_S = 0.2
MERGE_ABOVE = 200
NUM_READ_AT_ONCE = 16
SMALL_SHARD_BYTES = 4 * 1024**2
"""Larger ones, which were merged, come into a file."""


class Shard(Protocol):
    """Where one writer's lines go."""

    delay_s: float
    waits_itself: bool

    def append(self, lines: bytes) -> None:
        """Make them durable; raises ArtifactError when the store cannot."""
        ...


class AppendedFile:
    """A file of a local store that grows."""

    delay_s, waits_itself = 0.0, False

    def __init__(self, store: LocalStore, key: str) -> None:
        self.store, self.key = store, key

    def append(self, lines: bytes) -> None:
        """See `Shard.append`."""
        self.store.append(self.key, lines)


class UploadedKeys:
    """New keys of a store that cannot append, numbered in order."""

    delay_s, waits_itself = UPLOAD_S, True

    def __init__(self, store: ArtifactStore, key: str) -> None:
        self.store, self.key, self.num_written = store, key, 0

    def append(self, lines: bytes) -> None:
        """See `Shard.append`."""
        self.store.write(f"{self.key.removesuffix('.jsonl')}-{self.num_written:06d}.jsonl", lines)
        self.num_written += 1


def open_shard(store: ArtifactStore, folder: str) -> Shard:
    """A new shard in a folder (a prefix that ends with `/`), whose name no other process has."""
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    key = f"{folder}{started}-{secrets.token_hex(4)}.jsonl"
    return AppendedFile(store, key) if isinstance(store, LocalStore) else UploadedKeys(store, key)


def shard_keys(store: ArtifactStore, folder: str) -> list[str]:
    """The shards of a folder, the oldest first."""
    return [key for key in store.list(folder) if key.endswith(".jsonl")]


def read_lines(store: Sweepable, folder: str) -> Iterator[bytes]:
    """Every line but empty ones, without its line feed, the older shards' first; torn ones too.

    A few shards are held at once.

    Raises:
        ArtifactError: the store cannot be read.
    """
    if isinstance(store, LocalStore):
        for key in shard_keys(store, folder):
            yield from store.read_lines(key)
        return
    found = (one for one in store.entries(folder) if one.key.endswith(".jsonl"))
    shards = sorted(found, key=lambda one: one.key)
    with tempfile.TemporaryDirectory(prefix="lorid-shards-") as temporary:

        def fetch(shard: Entry) -> bytes | Path:
            if shard.size <= SMALL_SHARD_BYTES:
                return store.read(shard.key)
            into = Path(temporary, shard.key.rpartition("/")[2])
            store.read(shard.key, into=into)
            return into

        for content in each_at_once(fetch, shards, num_at_once=NUM_READ_AT_ONCE):
            yield from _lines_of(content)


def _lines_of(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield from (line for line in content.split(b"\n") if line)
        return
    with content.open("rb") as file:
        yield from (line.rstrip(b"\n") for line in file if line != b"\n")
    content.unlink()


def merge_shards(
    store: ArtifactStore, shards: Sequence[str], *, lines: Callable[[], Iterable[bytes]]
) -> None:
    """Make more than `MERGE_ABOVE` shards one, of `lines()`; while nobody writes them.

    Their keys are listed before their lines are read: a shard that comes after that stays. The new
    one is whole before the first of the old ones goes.

    Raises:
        ArtifactError: the store fails; nothing is lost.
    """
    if len(shards) <= MERGE_ABOVE:
        return
    with tempfile.NamedTemporaryFile(prefix="lorid-shards-", suffix=".jsonl") as file:
        file.writelines(line + b"\n" for line in lines())
        file.flush()
        store.write(f"{shards[-1].removesuffix('.jsonl')}-merged.jsonl", Path(file.name))
    all_at_once(store.remove, shards, num_at_once=NUM_READ_AT_ONCE)

"""Shards: files of lines in a store that are only ever added to, one writer a shard.

    shard = open_shard(store, "ledgers/my-run/")
    shard.append(b'{"a": 1}\\n')             # durable when it returns
    for key in shard_keys(store, "ledgers/my-run/"): store.read(key)

In a local folder a writer appends to a file of its own; in S3, where nothing can be appended to,
each call makes a new key, so callers gather lines first (`delay_s` says for how long). A crash may
leave the first part of a line: readers pass it over.
"""

import secrets
from datetime import UTC, datetime
from typing import Protocol

from lorid.artifacts.local import LocalStore
from lorid.artifacts.store import ArtifactStore

UPLOAD_S = 0.2


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

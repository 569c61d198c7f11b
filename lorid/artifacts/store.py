"""ArtifactStore: bytes under keys, in a local folder or in S3.

    store = open_store("s3://bucket/prefix")
    store.write("a/b.json", b"{}", if_absent=True)

The smallest thing that artifacts need: read, write, list, and remove for what `lorid store gc` and
leases leave behind. What an artifact is, and when it counts as finished, is in
`lorid.artifacts.records`. Stores are picklable: they travel to Ray workers, and each process opens
its own connections.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from lorid.errors import ArtifactError

Advance = Callable[[int], None]
"""Called with a number of bytes whenever so many more are transferred."""

_PART = re.compile(r"[^\x00-\x1f\x7f\\/]+")


class ArtifactStore(Protocol):
    """Bytes under keys; a key is a relative path with `/`."""

    @property
    def uri(self) -> str:
        """Absolute address of the store."""
        ...

    def read(self, key: str, *, into: Path | None = None, advance: Advance | None = None) -> bytes:
        """Content of a key; with `into`, streamed to that file (and b"" returned).

        The file `into` appears when all of it is there. What an interrupted call has fetched lies
        in a hidden file beside it, and the next call goes on from there.

        Raises:
            ArtifactIncomplete: there is no such key.
            ArtifactError: the store cannot be read.
        """
        ...

    def write(
        self,
        key: str,
        source: bytes | Path,
        *,
        if_absent: bool = False,
        advance: Advance | None = None,
    ) -> bool:
        """Store bytes or a file's content, whole or not at all.

        False when `if_absent` and the key exists already; of racing writers one gets True. After
        the call the key counts as new (its time of modification), also where the store found the
        same content there and did not take it again.

        Raises:
            ArtifactError: the store cannot be written.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, sorted."""
        ...

    def remove(self, key: str) -> None:
        """Remove a key; one that is not there is no error.

        Raises:
            ArtifactError: the store cannot be written.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a store holds under a key; `modified_at` in seconds since 1970, by the store's clock.

    `upload` names an unfinished upload to the key, where that is what the entry stands for.
    """

    key: str
    size: int
    modified_at: float
    upload: str | None = None


class Sweepable(ArtifactStore, Protocol):
    """A store that `lorid store gc` can sweep: what lies in it, how old, and what is half done."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Everything under keys that begin with `prefix`, in any order."""
        ...

    def unfinished(self) -> Iterator[Entry]:
        """What writers that died left behind, and what others write just now."""
        ...

    def discard(self, entry: Entry) -> None:
        """Remove something unfinished; what is gone already is no error."""
        ...


def open_store(uri: str) -> Sweepable:
    """The store at `s3://bucket/prefix`, `file:///folder` or a folder's path.

    Raises:
        ArtifactError: the address is malformed, or names a file.
    """
    from lorid.artifacts.local import LocalStore
    from lorid.artifacts.s3 import S3Store

    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme == "s3":
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise ArtifactError(f"store {uri!r} names no bucket; write s3://bucket/prefix")
        return S3Store(bucket=bucket, prefix=prefix.strip("/"))
    if scheme == "file":
        return LocalStore(Path(unquote(urlsplit(uri).path)))
    if scheme or not uri.strip():
        raise ArtifactError(f"store {uri!r}: expected a folder or s3://bucket/prefix")
    return LocalStore(Path(uri))


def checked_key(key: str) -> str:
    """The key itself, when it is a plain relative path.

    Raises:
        ArtifactError: it is absolute, climbs out, or holds control characters.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or not _PART.fullmatch(part) for part in parts):
        raise ArtifactError(f"key {key!r} is not a plain relative path")
    return key

"""ArtifactStore: bytes under keys, in a local folder or in S3.

    store = open_store("s3://bucket/prefix")
    store.write("a/b.json", b"{}", if_absent=True)

The smallest thing that artifacts need: three methods. What an artifact is, and when it counts as
finished, is in `lorid.artifacts.records`. Stores are picklable: they travel to Ray workers, and
each process opens its own connections.
"""

import re
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from lorid.errors import ArtifactError

_PART = re.compile(r"[^\x00-\x1f\x7f\\/]+")


class ArtifactStore(Protocol):
    """Bytes under keys; a key is a relative path with `/`."""

    @property
    def uri(self) -> str:
        """Absolute address of the store."""
        ...

    def read(self, key: str, *, into: Path | None = None) -> bytes:
        """Content of a key; with `into`, streamed to that file (and b"" returned).

        Raises:
            ArtifactIncomplete: there is no such key.
            ArtifactError: the store cannot be read.
        """
        ...

    def write(self, key: str, source: bytes | Path, *, if_absent: bool = False) -> bool:
        """Store bytes or a file's content, whole or not at all.

        False when `if_absent` and the key exists already; of racing writers one gets True.

        Raises:
            ArtifactError: the store cannot be written.
        """
        ...

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, sorted."""
        ...


def open_store(uri: str) -> ArtifactStore:
    """The store at `s3://bucket/prefix`, `file:///folder` or a folder's path.

    Raises:
        ArtifactError: the address is malformed.
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

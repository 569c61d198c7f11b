"""What transfers of large objects share: their parts, and the threads that move them."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorid.artifacts.retries import Persistence

PART_BYTES = 8 * 1024**2
MAX_PARTS = 10_000
READ_BYTES = 1024**2
NUM_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an object; `number` from 1, `offset` and `length` in bytes."""

    number: int
    offset: int
    length: int


def plan_parts(size: int) -> list[Part]:
    """The parts of an object of that size: 8 MiB each, larger where S3 would count too many."""
    length = PART_BYTES
    while length * MAX_PARTS < size:
        length *= 2
    return [
        Part(number=number, offset=offset, length=min(length, size - offset))
        for number, offset in enumerate(range(0, size, length), start=1)
    ]


@dataclass(frozen=True, kw_only=True)
class Remote:
    """An object's place, and what reaches it: the client, the patience, the threads."""

    client: Any
    bucket: str
    key: str
    persistence: Persistence
    pool: Executor

    def ask(self, operation: str, *, stop: threading.Event | None = None, **arguments: Any) -> Any:
        """One request about the object, tried again as long as that may help."""
        call = getattr(self.client, operation)
        return self.persistence.run(
            lambda: call(Bucket=self.bucket, Key=self.key, **arguments), stop=stop
        )


def content_md5(content: bytes) -> str:
    """The Content-MD5 header: servers refuse a body that differs from it."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


@contextmanager
def all_at_once(
    pool: Executor, work: Callable[[Part, threading.Event], None], parts: Sequence[Part]
) -> Iterator[None]:
    """Do the work of all parts during the block; the first error ends the others.

    `work` gets an event that is set when nobody wants its result any more.
    """
    stop = threading.Event()
    futures = [pool.submit(work, part, stop) for part in parts]
    try:
        yield
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        # Also on Ctrl-C: nobody wants the rest, and the file must not be written any more.
        stop.set()
        for future in futures:
            future.cancel()
        wait(futures)


def md5_of(path: Path, offset: int, length: int) -> Any:
    """MD5 of a piece of a file, as a hashlib object."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0 and (content := file.read(min(length, READ_BYTES))):
            digest.update(content)
            length -= len(content)
    return digest

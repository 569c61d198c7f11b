"""Downloads in parts: several at once, resumed where they were interrupted.

What arrives lies in a hidden `.NAME.partial` beside its target, and a list of the parts that are
there in `.NAME.parts`; the file takes the target's name when it is whole. Every part is tried again
by `Persistence`, and one that breaks off in its middle goes on from there.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lorid.artifacts.retries import Damaged, code_and_status
from lorid.artifacts.store import Advance
from lorid.artifacts.transfer import (
    NUM_TRIES,
    PART_BYTES,
    READ_BYTES,
    Part,
    Remote,
    all_at_once,
)

FIRST_BYTES = 2 * PART_BYTES


class Replaced(Exception):
    """The object is another than when its transfer began."""


def download(remote: Remote, into: Path, *, advance: Advance) -> None:
    """Fetch the object into a file, which appears when it is whole."""
    for attempt in range(NUM_TRIES):
        try:
            with _partial(into) as partial:
                _fetch_all(remote, partial, advance=advance)
                partial.put_in_place(into)
        except Replaced as error:
            if attempt == NUM_TRIES - 1:
                raise Damaged(str(error)) from error
        else:
            return


def _fetch_all(remote: Remote, partial: "Partial", *, advance: Advance) -> None:
    """Fetch the first part, whose answer tells size and ETag, and meanwhile the others."""
    answer = _answer_of_first(remote)
    total = answer.get("ContentRange", "").rpartition("/")[2]
    size = int(total) if total.isdigit() else answer["ContentLength"]
    if partial.of != f"{answer['ETag']} {size}":
        partial.restart(of=f"{answer['ETag']} {size}")
    first, *others = _plan(size)
    missing = [part for part in others if part.number not in partial.finished]
    advance(sum(part.length for part in others) - sum(part.length for part in missing))

    def fetch(part: Part, body: Any = None, stop: threading.Event | None = None) -> None:
        _fetch_part(
            remote, part, tag=answer["ETag"], into=partial.file, advance=advance, body=body,
            stop=stop,
        )  # fmt: skip

    def fetch_noted(part: Part, stop: threading.Event) -> None:
        fetch(part, stop=stop)
        partial.note(part.number)

    with all_at_once(remote.pool, fetch_noted, missing):
        fetch(first, answer["Body"])


def _answer_of_first(remote: Remote) -> dict[str, Any]:
    from botocore.exceptions import ClientError

    try:
        return remote.ask("get_object", Range=f"bytes=0-{FIRST_BYTES - 1}")
    except ClientError as error:
        if code_and_status(error)[1] != 416:
            raise
        return remote.ask("get_object")  # an empty object has no first byte to ask for


def _plan(size: int) -> list[Part]:
    """The parts of a download; what fits into the first costs one request."""
    starts = [0, *range(FIRST_BYTES, size, PART_BYTES)]
    return [
        Part(number=number, offset=start, length=end - start)
        for number, (start, end) in enumerate(pairwise([*starts, size]), start=1)
    ]


def _fetch_part(
    remote: Remote,
    part: Part,
    *,
    tag: str,
    into: int,
    advance: Advance,
    body: Any = None,
    stop: threading.Event | None = None,
) -> None:
    """Fetch one part into an open file at its offset; what arrived before a failure is kept.

    `body` is an answer that has begun already.
    """
    num_done = 0

    def request() -> None:
        nonlocal num_done, body
        arriving, body = body or _body_from(remote, part, num_done, tag=tag), None
        with closing(arriving):
            while num_done < part.length and (
                content := arriving.read(min(READ_BYTES, part.length - num_done))
            ):
                content = content[: part.length - num_done]
                _pwrite(into, content, part.offset + num_done)
                num_done += len(content)
                advance(len(content))
        if num_done < part.length:
            raise Damaged(f"{remote.key} broke off")

    remote.persistence.run(request, stop=stop)


def _body_from(remote: Remote, part: Part, num_done: int, *, tag: str) -> Any:
    first, last = part.offset + num_done, part.offset + part.length - 1
    answer = remote.client.get_object(
        Bucket=remote.bucket, Key=remote.key, Range=f"bytes={first}-{last}"
    )
    if answer["ETag"] != tag:
        raise Replaced(f"{remote.key} was replaced while it was fetched")
    return answer["Body"]


@dataclass
class Partial:
    """A file that arrives, and beside it the numbers of the parts that are there."""

    path: Path
    file: int
    of: str
    finished: set[int]
    lock: threading.Lock

    @property
    def parts_path(self) -> Path:
        """Where the numbers are."""
        return self.path.with_suffix(".parts")

    def restart(self, *, of: str = "") -> None:
        """Begin again with an empty file, of other content."""
        os.ftruncate(self.file, 0)
        self.of, self.finished = of, set()
        self.parts_path.unlink(missing_ok=True)

    def note(self, number: int) -> None:
        """A part is there."""
        with self.lock, self.parts_path.open("a") as file:
            file.write(f"{number}\n" if file.tell() else f"{self.of}\n{number}\n")

    def put_in_place(self, into: Path) -> None:
        """The file is whole: give it its name."""
        self.path.replace(into)
        self.parts_path.unlink(missing_ok=True)


@contextmanager
def _partial(into: Path) -> Iterator[Partial]:
    """The file that arrives for `into`: an earlier try's, unless another process fills that one."""
    path = into.with_name(f".{into.name}.partial")
    file = _locked(path)
    if file is None:
        path = into.with_name(f".{into.name}.{os.getpid()}-{threading.get_ident()}.partial")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        of, finished = _read_parts(path.with_suffix(".parts"))
        yield Partial(path=path, file=file, of=of, finished=finished, lock=threading.Lock())
    finally:
        os.close(file)


def _locked(path: Path) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    if not path.exists() or os.fstat(file).st_ino != path.stat().st_ino:
        os.close(file)  # another process put it in place between the two
        return None
    return file


def _read_parts(path: Path) -> tuple[str, set[int]]:
    try:
        of, *numbers = path.read_text().split("\n")
    except OSError:
        return "", set()
    return of, {int(number) for number in numbers if number.isdigit()}


def _pwrite(file: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written

"""Large transfers to and from S3: in parts, several at once, resumed where they were interrupted.

An upload is multipart. Its parts depend on the size alone, so a later try finds the parts of an
interrupted one by `ListParts` and sends the others; a part counts when its ETag is the MD5 of the
same bytes here. A download goes into a hidden `.NAME.partial` beside its target, with a list of the
parts that are there; it takes the target's name when it is whole. Every part is tried again by
`Persistence`, and a part that breaks off in its middle goes on from there.
"""

import base64
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorid.artifacts.retries import Damaged, Persistence, code_and_status
from lorid.artifacts.store import Advance

PART_BYTES = 8 * 1024**2
MAX_PARTS = 10_000
MAX_COPY_BYTES = 5 * 1024**3
READ_BYTES = 1024**2
NUM_TRIES = 3
_GONE = {"NoSuchUpload", "404"}


class Replaced(Exception):
    """The object is another than when its transfer began."""


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


# Upload -------------------------------------------------------------------------------------------


def upload(remote: Remote, path: Path, *, advance: Advance) -> None:
    """Store a file of more than one part under the object's key."""
    from botocore.exceptions import ClientError

    parts = plan_parts(path.stat().st_size)
    if _renewed(remote, path, parts):
        advance(path.stat().st_size)
        return
    for attempt in range(NUM_TRIES):
        upload_id, finished = _adopted(remote, path, parts)
        try:
            _send_parts(remote, path, parts, upload_id, finished=finished, advance=advance)
            _complete(remote, parts, upload_id, finished)
            return
        except ClientError as error:
            # Another writer of the same content completed the upload that both had adopted.
            if code_and_status(error)[0] not in _GONE | {"InvalidPart"}:
                raise
            if _renewed(remote, path, parts):
                return
            if attempt == NUM_TRIES - 1:
                raise


def _renewed(remote: Remote, path: Path, parts: Sequence[Part]) -> bool:
    """Whether the server holds the same content; then its time of modification is now."""
    from botocore.exceptions import ClientError

    try:
        head = remote.ask("head_object")
    except ClientError as error:
        if code_and_status(error)[1] == 404:
            return False
        raise
    size = path.stat().st_size
    if head["ContentLength"] != size or size > MAX_COPY_BYTES:
        return False
    tag = head["ETag"].strip('"')
    if tag != (_tag_of(path, parts) if "-" in tag else _md5(path, 0, size).hexdigest()):
        return False
    source = {"Bucket": remote.bucket, "Key": remote.key}
    try:
        remote.ask("copy_object", CopySource=source, MetadataDirective="REPLACE")
    except ClientError:  # removed meanwhile, or a server that cannot copy: it is uploaded
        return False
    return True


def _adopted(remote: Remote, path: Path, parts: Sequence[Part]) -> tuple[str, dict[int, str]]:
    """An unfinished upload of the same content with its finished parts, or a new one."""
    best: tuple[str, dict[int, str]] = ("", {})
    for upload_id in _unfinished_uploads(remote):
        finished = _matching_parts(remote, path, parts, upload_id)
        if len(finished) > len(best[1]):
            best = (upload_id, finished)
    if best[1]:
        return best
    return remote.ask("create_multipart_upload")["UploadId"], {}


def _unfinished_uploads(remote: Remote) -> list[str]:
    from botocore.exceptions import ClientError

    try:
        answer = remote.persistence.run(
            lambda: remote.client.list_multipart_uploads(Bucket=remote.bucket, Prefix=remote.key)
        )
    except ClientError as error:
        if code_and_status(error)[1] in (403, 501):  # not allowed to look, or not implemented
            return []
        raise
    return [one["UploadId"] for one in answer.get("Uploads", []) if one["Key"] == remote.key]


def _matching_parts(
    remote: Remote, path: Path, parts: Sequence[Part], upload_id: str
) -> dict[int, str]:
    """Finished parts by number; none when one of them is of other content."""
    from botocore.exceptions import ClientError

    by_number = {part.number: part for part in parts}
    finished: dict[int, str] = {}
    marker = 0
    while True:
        try:
            answer = remote.ask("list_parts", UploadId=upload_id, PartNumberMarker=marker)
        except ClientError as error:
            if code_and_status(error)[0] in _GONE:
                return {}
            raise
        for one in answer.get("Parts", []):
            part, tag = by_number.get(one["PartNumber"]), one["ETag"].strip('"')
            if part is None or one["Size"] != part.length:
                return {}
            if tag != _md5(path, part.offset, part.length).hexdigest():
                return {}
            finished[part.number] = tag
        if not answer.get("IsTruncated"):
            return finished
        marker = answer["NextPartNumberMarker"]


def _send_parts(
    remote: Remote,
    path: Path,
    parts: Sequence[Part],
    upload_id: str,
    *,
    finished: dict[int, str],
    advance: Advance,
) -> None:
    stop = threading.Event()

    def send(part: Part) -> None:
        with path.open("rb") as file:
            content = os.pread(file.fileno(), part.length, part.offset)
        answer = remote.ask(
            "upload_part",
            stop=stop,
            UploadId=upload_id,
            PartNumber=part.number,
            Body=content,
            ContentMD5=content_md5(content),
        )
        finished[part.number] = answer["ETag"].strip('"')
        advance(part.length)

    advance(sum(part.length for part in parts if part.number in finished))
    _all_of(remote.pool, send, [part for part in parts if part.number not in finished], stop=stop)


def _complete(
    remote: Remote, parts: Sequence[Part], upload_id: str, finished: dict[int, str]
) -> None:
    tags = [{"PartNumber": part.number, "ETag": finished[part.number]} for part in parts]
    remote.ask("complete_multipart_upload", UploadId=upload_id, MultipartUpload={"Parts": tags})


# Download -----------------------------------------------------------------------------------------


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
    from botocore.exceptions import ClientError

    try:
        size, tag = _fetch_first(remote, partial, advance=advance)
    except ClientError as error:
        if code_and_status(error)[1] != 416:
            raise
        partial.restart()  # an empty object has no first byte to ask for
        size, tag = 0, ""
    parts = plan_parts(size)[1:]
    missing = [part for part in parts if part.number not in partial.finished]
    advance(sum(part.length for part in parts) - sum(part.length for part in missing))
    stop = threading.Event()

    def fetch(part: Part) -> None:
        fetch_part(remote, part, tag=tag, into=partial.file, stop=stop, advance=advance)
        partial.note(part.number)

    _all_of(remote.pool, fetch, missing, stop=stop)


def _fetch_first(remote: Remote, partial: "Partial", *, advance: Advance) -> tuple[int, str]:
    """Fetch the first part, which tells the size and the ETag; what lies here of others goes."""

    def request() -> tuple[int, str, bytes]:
        answer = remote.client.get_object(
            Bucket=remote.bucket, Key=remote.key, Range=f"bytes=0-{PART_BYTES - 1}"
        )
        total = answer.get("ContentRange", "").rpartition("/")[2]
        size = int(total) if total.isdigit() else answer["ContentLength"]
        return size, answer["ETag"], answer["Body"].read()

    size, tag, content = remote.persistence.run(request)
    length = plan_parts(size)[0].length if size else 0
    if partial.of != f"{tag} {size}":
        partial.restart(of=f"{tag} {size}")
    if len(content) < length:
        first = Part(number=1, offset=0, length=length)
        fetch_part(remote, first, tag=tag, into=partial.file, advance=advance)
    else:
        _pwrite(partial.file, content[:length], 0)
        advance(length)
    return size, tag


def fetch_part(
    remote: Remote,
    part: Part,
    *,
    tag: str,
    into: int,
    stop: threading.Event | None = None,
    advance: Advance,
) -> None:
    """Fetch one part into an open file at its offset; what arrived before a failure is kept."""
    num_done = 0

    def request() -> None:
        nonlocal num_done
        first, last = part.offset + num_done, part.offset + part.length - 1
        answer = remote.client.get_object(
            Bucket=remote.bucket, Key=remote.key, Range=f"bytes={first}-{last}"
        )
        if answer["ETag"] != tag:
            raise Replaced(f"{remote.key} was replaced while it was fetched")
        body = answer["Body"]
        while num_done < part.length and (content := body.read(READ_BYTES)):
            content = content[: part.length - num_done]
            _pwrite(into, content, part.offset + num_done)
            num_done += len(content)
            advance(len(content))
        if num_done < part.length:
            raise Damaged(f"{remote.key} broke off")

    remote.persistence.run(request, stop=stop)


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
        self.parts_path.write_text(f"{of}\n")

    def note(self, number: int) -> None:
        """A part is there."""
        with self.lock, self.parts_path.open("a") as file:
            file.write(f"{number}\n")

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


# Both ---------------------------------------------------------------------------------------------


def content_md5(content: bytes) -> str:
    """The Content-MD5 header: servers refuse a body that differs from it."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _all_of(
    pool: Executor, work: Callable[[Part], None], parts: Sequence[Part], *, stop: threading.Event
) -> None:
    """Do the work of all parts at once; the first error ends the others."""
    futures = [pool.submit(work, part) for part in parts]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        # Also on Ctrl-C: nobody wants the rest, and the file must not be written any more.
        stop.set()
        for future in futures:
            future.cancel()
        wait(futures)


def _tag_of(path: Path, parts: Sequence[Part]) -> str:
    digests = b"".join(_md5(path, part.offset, part.length).digest() for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _md5(path: Path, offset: int, length: int) -> Any:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0 and (content := file.read(min(length, READ_BYTES))):
            digest.update(content)
            length -= len(content)
    return digest


def _pwrite(file: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written

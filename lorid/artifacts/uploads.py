"""Uploads of more than one part: several at once, resumed where they were interrupted.

The parts depend on the size alone, so a later try finds those of an interrupted one by `ListParts`
and sends the others; a part counts when its ETag is the MD5 of the same bytes here. What the server
holds already, by its ETag, is not sent at all. Every part is tried again by `Persistence`.
"""

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from lorid.artifacts.retries import code_and_status
from lorid.artifacts.store import Advance
from lorid.artifacts.transfer import (
    NUM_TRIES,
    Part,
    Remote,
    all_at_once,
    content_md5,
    md5_of,
    plan_parts,
)

MAX_COPY_BYTES = 5 * 1024**3
_GONE = {"NoSuchUpload", "404"}


def upload(remote: Remote, path: Path, *, advance: Advance) -> None:
    """Store a file of several parts under the object's key."""
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
    if tag != (_tag_of(path, parts) if "-" in tag else md5_of(path, 0, size).hexdigest()):
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
            if tag != md5_of(path, part.offset, part.length).hexdigest():
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
    def send(part: Part, stop: threading.Event) -> None:
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
    missing = [part for part in parts if part.number not in finished]
    with all_at_once(remote.pool, send, missing):
        pass


def _complete(
    remote: Remote, parts: Sequence[Part], upload_id: str, finished: dict[int, str]
) -> None:
    tags = [{"PartNumber": part.number, "ETag": finished[part.number]} for part in parts]
    remote.ask("complete_multipart_upload", UploadId=upload_id, MultipartUpload={"Parts": tags})


def _tag_of(path: Path, parts: Sequence[Part]) -> str:
    digests = b"".join(md5_of(path, part.offset, part.length).digest() for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"

"""A store in S3, or in a server that speaks its protocol.

Credentials, region and endpoint come from boto3's own chain (`AWS_ENDPOINT_URL` and the rest);
nothing of them is kept, logged or pickled. Files of more than one part are transferred in parallel
and resumed (`uploads`, `downloads`); a write with `if_absent` is one PutObject with
`If-None-Match: *`. What servers honour and what not is in docs/stores.md.
"""

import hashlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lorid.artifacts.connection import MISSING, connect, explained, problem
from lorid.artifacts.downloads import download
from lorid.artifacts.retries import Damaged, Persistence, code_and_status
from lorid.artifacts.store import Advance, Entry, checked_key
from lorid.artifacts.transfer import Remote, content_md5
from lorid.artifacts.uploads import upload
from lorid.errors import ArtifactError

NUM_PARTS_AT_ONCE = 10
# An upload in parts takes four requests more; below this, sending it all again costs less.
SINGLE_PUT_BYTES = 16 * 1024**2
_WRITER = "lorid-writer"


class S3Store:
    """Keys are objects below `prefix` in `bucket`."""

    def __init__(self, *, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self._persistence = Persistence(name=self.uri)
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        # A worker of a run that has reached the server waits for it, should it be gone just then.
        return {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "has_reached": self._persistence.has_reached,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.bucket, self.prefix = state["bucket"], state["prefix"]
        self._persistence = Persistence(name=self.uri, has_reached=state["has_reached"])
        self._open()

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str, *, into: Path | None = None, advance: Advance | None = None) -> bytes:
        """See `ArtifactStore.read`."""
        with explained(self.uri, key):
            remote = self._remote(key)
            if into is None:
                return self._persistence.run(lambda: _content(remote))
            download(remote, into, advance=advance or _ignore)
        return b""

    def write(
        self,
        key: str,
        source: bytes | Path,
        *,
        if_absent: bool = False,
        advance: Advance | None = None,
    ) -> bool:
        """See `ArtifactStore.write`; with `if_absent`, a file has 5 GiB at most."""
        advance = advance or _ignore
        with explained(self.uri, key):
            remote = self._remote(key)
            if isinstance(source, Path):
                if not if_absent and source.stat().st_size > SINGLE_PUT_BYTES:
                    upload(remote, source, advance=advance)
                    return True
                source = source.read_bytes()
            if if_absent:
                is_written = _create(remote, source)
            else:
                remote.ask("put_object", Body=source, ContentMD5=content_md5(source))
                is_written = True
            advance(len(source))
        return is_written

    def list(self, prefix: str) -> list[str]:
        """See `ArtifactStore.list`."""
        return sorted(entry.key for entry in self.entries(prefix))

    def remove(self, key: str) -> None:
        """See `ArtifactStore.remove`."""
        with explained(self.uri, key):
            self._remote(key).ask("delete_object")

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See `Sweepable.entries`."""
        markers = {"NextContinuationToken": "ContinuationToken"}
        prefix = f"{self._root}{prefix}"
        for item in self._pages("list_objects_v2", "Contents", markers, Prefix=prefix):
            yield Entry(
                key=item["Key"].removeprefix(self._root),
                size=item["Size"],
                modified_at=item["LastModified"].timestamp(),
            )

    def unfinished(self) -> Iterator[Entry]:
        """See `Sweepable.unfinished`: multipart uploads that nobody has completed."""
        markers = {"NextKeyMarker": "KeyMarker", "NextUploadIdMarker": "UploadIdMarker"}
        for item in self._pages("list_multipart_uploads", "Uploads", markers, Prefix=self._root):
            yield Entry(
                key=item["Key"].removeprefix(self._root),
                size=self._uploaded_bytes(item["Key"], item["UploadId"]),
                modified_at=item["Initiated"].timestamp(),
                upload=item["UploadId"],
            )

    def discard(self, entry: Entry) -> None:
        """See `Sweepable.discard`."""
        from botocore.exceptions import ClientError

        with explained(self.uri, entry.key):
            try:
                self._remote(entry.key).ask("abort_multipart_upload", UploadId=entry.upload)
            except ClientError as error:
                if code_and_status(error)[0] != "NoSuchUpload":
                    raise

    @property
    def _root(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _open(self) -> None:
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def _remote(self, key: str) -> Remote:
        key = f"{self._root}{checked_key(key)}"
        client = self._s3()
        assert self._pool is not None
        return Remote(
            client=client,
            bucket=self.bucket,
            key=key,
            persistence=self._persistence,
            pool=self._pool,
        )

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                client = connect()
                self._greet(client)
                self._pool = ThreadPoolExecutor(NUM_PARTS_AT_ONCE, thread_name_prefix="lorid-parts")
                self._client = client
        return self._client

    def _greet(self, client: Any) -> None:
        """One listing, whose errors say what is wrong: address, bucket, credentials, clock."""
        from botocore.exceptions import ClientError

        try:
            self._persistence.run(
                lambda: client.list_objects_v2(Bucket=self.bucket, Prefix=self._root, MaxKeys=1)
            )
        except ClientError as error:
            code, status = code_and_status(error)
            if code in MISSING:  # of a bucket that is missing S3 says more: this is another server
                raise ArtifactError(problem(self.uri, code, status)) from error
            # Whoever may not list may still read and write.
            if code != "AccessDenied":
                raise

    def _pages(
        self, operation: str, field: str, markers: Mapping[str, str], **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        """Items of a listing; `markers` name an answer's fields that go into the next request."""
        # Not boto3's paginators: one that met an error ends as if the listing were complete.
        with explained(self.uri, str(arguments.get("Prefix", ""))):
            call = getattr(self._s3(), operation)
            more: dict[str, Any] = {}
            while True:
                page = self._persistence.run(
                    lambda: call(Bucket=self.bucket, **arguments, **more)  # noqa: B023
                )
                yield from page.get(field, [])
                if not page.get("IsTruncated"):
                    return
                more = {ours: page[theirs] for theirs, ours in markers.items()}

    def _uploaded_bytes(self, key: str, upload_id: str) -> int:
        markers = {"NextPartNumberMarker": "PartNumberMarker"}
        try:
            parts = self._pages("list_parts", "Parts", markers, Key=key, UploadId=upload_id)
            return sum(part["Size"] for part in parts)
        except ArtifactError:  # completed or aborted meanwhile
            return 0


def _content(remote: Remote) -> bytes:
    answer = remote.client.get_object(Bucket=remote.bucket, Key=remote.key)
    content = answer["Body"].read()
    tag = answer["ETag"].strip('"')
    # Of one part, and not encrypted by the server, the ETag is the content's MD5.
    is_md5 = len(tag) == 32 and not answer.get("SSECustomerAlgorithm")
    is_md5 &= not str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
    if is_md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != tag:
        raise Damaged(f"{remote.key} differs from its ETag {tag}")
    return content


def _create(remote: Remote, content: bytes) -> bool:
    """Create the object; False when it is there, made by anybody but this very call."""
    from botocore.exceptions import ClientError

    writer = uuid.uuid4().hex
    num_tries = 0

    def request() -> bool:
        nonlocal num_tries
        num_tries += 1
        try:
            remote.client.put_object(
                Bucket=remote.bucket,
                Key=remote.key,
                Body=content,
                ContentMD5=content_md5(content),
                IfNoneMatch="*",
                Metadata={_WRITER: writer},
            )
        except ClientError as error:
            if code_and_status(error)[1] != 412:
                raise
            # An earlier try may have succeeded, with its answer lost.
            return num_tries > 1 and _is_by(remote, writer)
        return True

    return remote.persistence.run(request)


def _is_by(remote: Remote, writer: str) -> bool:
    head = remote.client.head_object(Bucket=remote.bucket, Key=remote.key)
    return head.get("Metadata", {}).get(_WRITER) == writer


def _ignore(num_bytes: int) -> None:
    """Nobody looks."""

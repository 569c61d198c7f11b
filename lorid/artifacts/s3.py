"""A store in S3, or in a server that speaks its protocol.

Credentials, region and endpoint come from boto3's own chain (`AWS_ENDPOINT_URL` and the rest);
nothing of them is kept, logged or pickled. Files go through boto3's managed transfers (multipart,
parallel); a write with `if_absent` is one PutObject with `If-None-Match: *`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorid.artifacts.store import checked_key
from lorid.errors import ArtifactError, ArtifactIncomplete

NUM_TRIES = 5
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
_MISSING = {"NoSuchKey", "404", "NotFound"}
_FIXES = {
    "NoSuchBucket": "create the bucket, or name another one (store=s3://bucket/prefix)",
    "AccessDenied": "the credentials may not do this; check their policy",
    "403": "the credentials may not do this; check their policy",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "SignatureDoesNotMatch": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired; renew it",
    "RequestTimeTooSkewed": "set this machine's clock",
}


class S3Store:
    """Keys are objects below `prefix` in `bucket`."""

    def __init__(self, *, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "prefix": self.prefix, "_client": None}

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str, *, into: Path | None = None) -> bytes:
        """See `ArtifactStore.read`."""
        with self._explained(key):
            if into is None:
                answer = self._s3().get_object(Bucket=self.bucket, Key=self._key(key))
                return answer["Body"].read()
            self._s3().download_file(self.bucket, self._key(key), str(into))
        return b""

    def write(self, key: str, source: bytes | Path, *, if_absent: bool = False) -> bool:
        """See `ArtifactStore.write`."""
        with self._explained(key):
            if if_absent:
                content = source if isinstance(source, bytes) else source.read_bytes()
                return self._create(key, content)
            if isinstance(source, bytes):
                self._s3().put_object(Bucket=self.bucket, Key=self._key(key), Body=source)
            else:
                self._s3().upload_file(str(source), self.bucket, self._key(key))
        return True

    def list(self, prefix: str) -> list[str]:
        """See `ArtifactStore.list`."""
        root = f"{self.prefix}/" if self.prefix else ""
        with self._explained(prefix):
            pages = (
                self._s3()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self.bucket, Prefix=root + prefix)
            )
            found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.removeprefix(root) for key in found)

    def _create(self, key: str, content: bytes) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(NUM_TRIES):
            try:
                self._s3().put_object(
                    Bucket=self.bucket, Key=self._key(key), Body=content, IfNoneMatch="*"
                )
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 412:
                    return False
                # 409: another conditional write is under way, and S3 asks to try again.
                if status != 409 or attempt == NUM_TRIES - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
            else:
                return True
        return False

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}".lstrip("/")

    def _s3(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            style = "path" if os.environ.get("AWS_ENDPOINT_URL") else "auto"
            self._client = boto3.Session().client(
                "s3",
                config=Config(
                    retries={"mode": "standard", "max_attempts": NUM_TRIES},
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    s3={"addressing_style": style},
                ),
            )
        return self._client

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in _MISSING:
                raise ArtifactIncomplete(f"{self.uri} holds no {key}") from error
            raise ArtifactError(self._problem(code)) from error
        except NoCredentialsError as error:
            raise ArtifactError(
                f"store {self.uri}: no credentials; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile, or run where a role is attached"
            ) from error
        except (BotoCoreError, Boto3Error) as error:
            code = next((code for code in _FIXES if code in str(error)), None)
            raise ArtifactError(
                self._problem(code)
                if code
                else f"store {self.uri}: {' '.join(str(error).split())[:200]}; "
                "check the network, AWS_ENDPOINT_URL and the region"
            ) from error

    def _problem(self, code: str) -> str:
        fix = _FIXES.get(code, "see the server's log")
        return f"store {self.uri}: the server answered {code}; {fix}"

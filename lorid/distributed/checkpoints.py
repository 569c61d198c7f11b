"""Checkpoints of roles that are in training: where they lie, and that no damaged one is used.

    seal(folder)                                # before it is reported
    with opened(checkpoint) as folder: ...      # as it was sealed, or an error

Ray moves them by pyarrow, which does not look whether what came is what was sent.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem
from ray.train import Checkpoint

from lorid.artifacts.triples import file_sha256
from lorid.errors import ArtifactDrifted, one_line

# Between tries S3's client waits up to 20 s: 25 tries outlast a server that is gone for minutes.
NUM_S3_TRIES = 25
SEAL_FILE = "checksums.json"
NUM_READS = 3


def checkpoint_storage(store: str) -> dict[str, Any]:
    """Where Ray Train keeps checkpoints of unfinished roles: beside the artifacts, in the store."""
    root = f"{store.rstrip('/')}/train-runs"
    if not root.startswith("s3://"):
        return {"storage_path": root}
    found, path = FileSystem.from_uri(root)
    return {"storage_path": path, "storage_filesystem": PatientS3.of_region(found.region)}


class PatientS3(S3FileSystem):
    """pyarrow's S3, waiting about three minutes for a server that is gone instead of a second.

    pyarrow loses the retry strategy when it pickles a file system; this one keeps it.
    """

    @classmethod
    def of_region(cls, region: str) -> "PatientS3":
        """One for buckets in that region; everything else comes from the environment."""
        # Unlike `from_uri`, the constructor does not look for the endpoint in the environment.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return cls(
            region=region,
            endpoint_override=endpoint,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=NUM_S3_TRIES),
        )

    def __reduce__(self) -> Any:
        return PatientS3.of_region, (self.region,)


def seal(folder: Path) -> None:
    """Note the SHA-256 of every file."""
    (folder / SEAL_FILE).write_text(json.dumps(_checksums(folder)))


@contextmanager
def opened(checkpoint: Checkpoint) -> Iterator[Path]:
    """The checkpoint's files; fetched again when something came damaged.

    Raises:
        ArtifactDrifted: it is damaged where it lies.
    """
    cause = ""
    for _ in range(NUM_READS):
        with ExitStack() as stack:
            try:
                folder = Path(stack.enter_context(checkpoint.as_directory()))
                sealed = json.loads((folder / SEAL_FILE).read_text())
            except (OSError, ValueError) as error:
                cause = one_line(error)
                continue
            found = _checksums(folder)
            damaged = sorted(name for name in sealed if found.get(name) != sealed[name])
            if not damaged:
                yield folder
                return
            cause = f"{damaged[0]} differs from its checksum"
    raise ArtifactDrifted(
        f"checkpoint {checkpoint.path}: {cause}; delete that folder to train without it"
    )


def _checksums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL_FILE
    }

"""Checkpoints of roles that are in training: where they lie, and that no damaged one is used.

    sender.send(session, summary)               # sealed, and uploaded while training goes on
    with opened(checkpoint) as folder: ...      # as it was sealed, or an error
    prune(store, run_name)                      # what an upload that was cut off has left

Ray moves them by pyarrow, which does not look whether what came is what was sent. It counts a
checkpoint once it is whole, in a file of its own; until then the one before is the newest.
"""

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from pyarrow.fs import (
    AwsStandardS3RetryStrategy,
    FileSelector,
    FileSystem,
    FileType,
    LocalFileSystem,
    S3FileSystem,
)
from ray.train import Checkpoint, CheckpointUploadMode, report

from lorid.artifacts.triples import file_sha256
from lorid.errors import ArtifactDrifted, one_line
from lorid.training.loop import TrainingSession

# Between tries S3's client waits up to 20 s: 25 tries outlast a server that is gone for minutes.
NUM_S3_TRIES = 25
SEAL_FILE = "checksums.json"
NUM_READS = 3
LOCAL_PREFIX = "lorid-checkpoints-"
LOCK_FILE = "lock"
# Ray's own: which checkpoints of a run are whole.
SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"


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


class CheckpointSender:
    """Sends a session's checkpoints; the upload goes on while the session trains.

    Every rank sends in the same steps: `report` lets none pass before the others are there. One
    checkpoint is under way at a time, so a store that is slower than training slows it down at
    checkpoints, and does not fill the disk.
    """

    def __init__(self) -> None:
        _sweep()
        new = Path(tempfile.mkdtemp(prefix=f".{LOCAL_PREFIX}"))
        # Held as long as this process lives: others see by it what a killed one has left.
        self._lock = _locked(new)
        self.folder = new.rename(new.with_name(new.name.removeprefix(".")))
        self._under_way: Path | None = None

    def send(self, session: TrainingSession, summary: dict[str, Any]) -> None:
        """Save, seal and report; the first rank's files are those of all."""
        while self._under_way is not None and self._under_way.exists():
            # Ray removes the folder once it is uploaded, and ends this process if that fails.
            time.sleep(0.02)
        folder = self.folder / f"step-{session.step}"
        session.save(folder)
        if session.ranks.rank:
            report(summary, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
            return
        seal(folder)
        self._under_way = folder
        report(
            summary,
            checkpoint=Checkpoint.from_directory(folder),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
        )


def _locked(folder: Path) -> IO[str] | None:
    """The folder's lock, or None if another process lives that has it."""
    try:
        file = (folder / LOCK_FILE).open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    return file


def _sweep() -> None:
    """Remove the folders of killed workers: a large adapter's checkpoint has gigabytes."""
    for folder in Path(tempfile.gettempdir()).glob(f"{LOCAL_PREFIX}*"):
        if (lock := _locked(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()


def prune(store: str, run_name: str) -> list[str]:
    """Remove a run's checkpoints that are not whole; only while nothing writes to it.

    An upload that is cut off leaves its folder, which Ray neither counts nor removes.
    """
    storage = checkpoint_storage(store)
    files = storage.get("storage_filesystem") or LocalFileSystem()
    root = f"{storage['storage_path']}/{run_name}"
    found = files.get_file_info(FileSelector(root, allow_not_found=True))
    folders = [
        info for info in found
        if info.type == FileType.Directory and info.base_name.startswith("checkpoint_")
    ]  # fmt: skip
    if not folders:
        return []
    whole = _whole_checkpoints(files, f"{root}/{SNAPSHOT_FILE}")
    left = [info for info in folders if info.base_name not in whole]
    for info in left:
        files.delete_dir(info.path)
    return [info.base_name for info in left]


def _whole_checkpoints(files: FileSystem, path: str) -> set[str]:
    """The names that Ray's snapshot holds; none before the first one."""
    if files.get_file_info(path).type == FileType.NotFound:
        return set()
    with files.open_input_stream(path) as stream:
        snapshot = json.loads(stream.read())
    rows = [*snapshot["checkpoint_results"], snapshot["latest_checkpoint_result"]]
    return {row["checkpoint_dir_name"] for row in rows if row}


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

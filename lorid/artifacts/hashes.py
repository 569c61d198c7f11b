"""SHA-256 of files, and of a base's weights without reading them again and again.

    file_sha256(path)          # always read
    weights_sha256(path)       # large files are read once a process, as long as they do not change

A run asks for its base's identity a dozen times, and 7B weights take ten seconds each time.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from lorid.errors import DataError

# Hashing more takes longer than a file system's clock ticks: no change can hide between two looks.
LARGE_BYTES = 64 * 1024**2


def file_sha256(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error


def weights_sha256(path: Path) -> str:
    """`file_sha256` of a file that is not meant to change.

    Raises:
        DataError: it cannot be read.
    """
    try:
        now = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path") from error
    if now.st_size < LARGE_BYTES:
        return file_sha256(path)
    return _hashed_once(path, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@lru_cache(maxsize=256)
def _hashed_once(path: Path, *_: int) -> str:
    return file_sha256(path)

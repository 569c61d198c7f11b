"""Copies of artifacts on a node's disk: shared by its replicas, verified, and few.

    copy = fetch_once(store, record, cache=node_cache("triples"))
    copy.folder          # whole and right, and stays as long as somebody keeps `copy`

Whoever uses a copy holds a shared lock on its folder, which ends with the `Copy` or its process.
After a fetch, copies that nobody holds go, but for the newest `NUM_SPARE`: an alias may go back.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lorid.artifacts.records import Record, fetch
from lorid.artifacts.store import ArtifactStore
from lorid.artifacts.triples import file_sha256
from lorid.errors import ArtifactError, ConfigError

NUM_SPARE = 3
NUM_TRIES = 3


class Hold:
    """A lock on a folder, until it is dropped."""

    def __init__(self, folder: Path, *, alone: bool = False, waits: bool = False) -> None:
        """Alone at once, alone after waiting for others, or beside them.

        Raises OSError when there is no such folder, or, for `alone`, somebody else holds it.
        """
        self._file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            kind = fcntl.LOCK_EX if alone or waits else fcntl.LOCK_SH
            fcntl.flock(self._file, kind | (fcntl.LOCK_NB if alone else 0))
        except OSError:
            os.close(self._file)
            raise
        self._is_open = True

    def is_of(self, folder: Path) -> bool:
        """Whether the folder of that name is still the one that is held."""
        try:
            return os.path.samestat(os.fstat(self._file), os.lstat(folder))
        except FileNotFoundError:
            return False

    def drop(self) -> None:
        """Let go; also when nobody has it any more."""
        if self._is_open:
            self._is_open = False
            os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def __del__(self) -> None:
        if hasattr(self, "_is_open"):
            self.drop()


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy that is in use."""

    folder: Path
    hold: Hold


def node_cache(kind: str) -> Path:
    """Where this user's processes on a node keep copies of one kind."""
    return Path(tempfile.gettempdir()) / f"lorid-{kind}-{os.getuid()}"


def fetch_once(store: ArtifactStore, record: Record, *, cache: Path) -> Copy:
    """The node's copy of an artifact, whole and verified; replicas of a node may race.

    An existing copy is kept if it still equals the record: another replica may be reading it.

    Raises:
        ConfigError: the cache belongs to another user, who could change what is loaded.
    """
    _make_cache(cache)
    folder = cache / record.address.replace("/", "-")
    for _ in range(NUM_TRIES):
        copy = _existing(record, folder) or _fetched(store, record, folder)
        if copy is not None:
            os.utime(folder)
            _remove_spare(cache)
            return copy
    raise ArtifactError(f"{folder}: other processes change this copy; set TMPDIR to another folder")


def make_once(folder: Path, make: Callable[[Path], None]) -> Copy:
    """The node's copy of what `make` writes, whole, into a folder that is not there yet.

    One process of the node makes at a time: what is made may need much memory. What is there
    already waits for nobody.

    Raises:
        ConfigError: the cache belongs to another user.
    """
    cache = folder.parent
    _make_cache(cache)
    copy = _held(folder)
    if copy is None:
        with Hold(cache, waits=True):
            if not folder.is_dir():
                make(folder)
            copy = Copy(folder=folder, hold=Hold(folder))
            _remove_spare(cache)
    os.utime(folder)
    return copy


def _make_cache(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    if cache.is_symlink() or cache.stat().st_uid != os.getuid():
        raise ConfigError(f"{cache} belongs to another user; set TMPDIR to a folder of your own")


def _held(folder: Path) -> Copy | None:
    """The copy of that name, if there is one."""
    try:
        hold = Hold(folder)
    except OSError:  # none yet
        return None
    if hold.is_of(folder):
        return Copy(folder=folder, hold=hold)
    hold.drop()
    return None


def _existing(record: Record, folder: Path) -> Copy | None:
    # In this order: what is verified after it is held stays.
    copy = _held(folder)
    if copy is None or _is_intact(record, folder):
        return copy
    copy.hold.drop()
    return None


def _fetched(store: ArtifactStore, record: Record, folder: Path) -> Copy | None:
    """A new copy; None when another replica was first."""
    fresh = Path(tempfile.mkdtemp(dir=folder.parent))
    hold = Hold(fresh)
    try:
        fetch(store, record, into=fresh)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
        except OSError:
            return None
        return Copy(folder=folder, hold=hold)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_intact(record: Record, folder: Path) -> bool:
    paths = [(folder / entry.path, entry.sha256) for entry in record.files]
    return all(path.is_file() and file_sha256(path) == sha256 for path, sha256 in paths)


def _remove_spare(cache: Path) -> None:
    """Remove what nobody holds, but for the newest; also what replicas that died had begun."""
    found = [(entry.stat().st_mtime, Path(entry)) for entry in os.scandir(cache) if entry.is_dir()]
    for _, folder in sorted(found, reverse=True)[NUM_SPARE:]:
        try:
            with Hold(folder, alone=True):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, or another replica removes it
            continue

"""A store in a local folder.

A write goes to a temporary file beside its target and is renamed (or, with `if_absent`, linked)
into place, so a reader sees all of it or nothing, whenever the process dies.
"""

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lorid.artifacts.store import Advance, Entry, checked_key
from lorid.errors import ArtifactError, ArtifactIncomplete, explained_os_error

_TEMPORARY = ".writing-"


class LocalStore:
    """Keys are files below `root`; links below it are not followed."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))
        for path in (self.root, *self.root.parents):
            if os.path.isfile(path):
                raise ArtifactError(
                    f"store {self.root}: {path} is a file; name a folder, which need not exist yet"
                )

    @property
    def uri(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def read(self, key: str, *, into: Path | None = None, advance: Advance | None = None) -> bytes:
        """See `ArtifactStore.read`."""
        path = self._path(key)
        try:
            if into is None:
                return path.read_bytes()
            _copy(path, into)
        except FileNotFoundError as error:
            raise ArtifactIncomplete(f"{self.uri} holds no {key}") from error
        except OSError as error:
            doing = f"read {path}" if into is None else f"copy {path} to {into}"
            raise ArtifactError(explained_os_error(error, doing=doing)) from error
        if advance is not None:
            advance(into.stat().st_size)
        return b""

    def write(
        self,
        key: str,
        source: bytes | Path,
        *,
        if_absent: bool = False,
        advance: Advance | None = None,
    ) -> bool:
        """See `ArtifactStore.write`."""
        path = self._path(key)
        try:
            is_written = self._write(path, source, if_absent=if_absent)
        except OSError as error:
            raise ArtifactError(
                explained_os_error(error, doing=f"write {key} to the store {self.uri}")
            ) from error
        if advance is not None:
            advance(len(source) if isinstance(source, bytes) else source.stat().st_size)
        return is_written

    def append(self, key: str, content: bytes) -> None:
        """Add to the end of a key, made if need be; durable after the call.

        A crash may leave the first part of the content. Only a folder can do this: for logs whose
        readers expect that.

        Raises:
            ArtifactError: the store cannot be written.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            with path.open("ab") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                _sync_folder(path.parent)
        except OSError as error:
            raise ArtifactError(
                explained_os_error(error, doing=f"append to {key} in the store {self.uri}")
            ) from error

    def read_lines(self, key: str) -> Iterator[bytes]:
        """Lines that `append` made, but for empty ones; one at a time.

        Raises:
            ArtifactIncomplete: there is no such key.
            ArtifactError: it cannot be read.
        """
        path = self._path(key)
        try:
            with path.open("rb") as file:
                for line in file:
                    if content := line.rstrip(b"\n"):
                        yield content
        except FileNotFoundError as error:
            raise ArtifactIncomplete(f"{self.uri} holds no {key}") from error
        except OSError as error:
            raise ArtifactError(explained_os_error(error, doing=f"read {path}")) from error

    def list(self, prefix: str) -> list[str]:
        """See `ArtifactStore.list`."""
        return sorted(entry.key for entry in self.entries(prefix))

    def remove(self, key: str) -> None:
        """See `ArtifactStore.remove`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise ArtifactError(
                explained_os_error(error, doing=f"remove {key} from the store {self.uri}")
            ) from error

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See `Sweepable.entries`."""
        # Only what begins with the prefix is walked.
        above, _, begin = prefix.rpartition("/")
        skip = len(str(self.root)) + 1 if self.root.name else 1
        for path in self._files(self.root / above, begin=begin):
            key = path[skip:]
            if key.startswith(prefix) and not key.rpartition("/")[2].startswith(_TEMPORARY):
                yield from self._entry(path, key)

    def unfinished(self) -> Iterator[Entry]:
        """See `Sweepable.unfinished`: temporary files of writers that died, or still write."""
        for path in self._files(self.root):
            if os.path.basename(path).startswith(_TEMPORARY):
                yield from self._entry(path, os.path.relpath(path, self.root))

    def discard(self, entry: Entry) -> None:
        """See `Sweepable.discard`."""
        self.remove(entry.key)

    def _files(self, start: Path, *, begin: str = "") -> Iterator[str]:
        """Paths below a folder; directly in it, only what begins so."""
        top = str(start)
        for folder, folders, names in os.walk(top):
            if folder == top:
                folders[:] = [name for name in folders if name.startswith(begin)]
                names = [name for name in names if name.startswith(begin)]
            folders[:] = [name for name in folders if not os.path.islink(f"{folder}/{name}")]
            for name in names:
                path = os.path.join(folder, name)
                if not os.path.islink(path):
                    yield path

    def _entry(self, path: str, key: str) -> Iterator[Entry]:
        try:
            status = os.stat(path)
        except FileNotFoundError:  # another process removed it, or put it in place
            return
        yield Entry(key=key, size=status.st_size, modified_at=status.st_mtime)

    def _write(self, path: Path, source: bytes | Path, *, if_absent: bool) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path) and not if_absent and _is_same(source, path):
            os.utime(path)
            return True
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as content:
                        shutil.copyfileobj(content, file, 1024**2)
                file.flush()
                os.fsync(file.fileno())
            return self._put_in_place(Path(name), path, if_absent=if_absent)
        finally:
            Path(name).unlink(missing_ok=True)

    def _put_in_place(self, temporary: Path, path: Path, *, if_absent: bool) -> bool:
        if not if_absent:
            temporary.replace(path)
            return True
        try:
            # Unlike a rename, a link never replaces: the file system decides who was first.
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True

    def _path(self, key: str) -> Path:
        path = self.root / checked_key(key)
        if os.path.realpath(path) != os.path.join(os.path.realpath(self.root), key):
            raise ArtifactError(f"key {key!r} leads through a link in the store {self.uri}")
        return path


def _sync_folder(folder: Path) -> None:
    # The name of a new file is durable only when its folder is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_same(source: Path, path: Path) -> bool:
    try:
        return filecmp.cmp(source, path, shallow=False)
    except FileNotFoundError:
        return False


def _copy(path: Path, into: Path) -> None:
    # A folder of its own, not `mkstemp`: the file gets the usual permissions.
    with (
        path.open("rb") as content,
        tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=into.parent) as folder,
    ):
        arriving = Path(folder, into.name)
        with arriving.open("wb") as file:
            shutil.copyfileobj(content, file, 1024**2)
        arriving.replace(into)

"""A store in a local folder.

A write goes to a temporary file beside its target and is renamed (or, with `if_absent`, linked)
into place, so a reader sees all of it or nothing, whenever the process dies.
"""

import os
import shutil
import tempfile
from pathlib import Path

from lorid.artifacts.store import checked_key
from lorid.errors import ArtifactError, ArtifactIncomplete

_TEMPORARY = ".writing-"


class LocalStore:
    """Keys are files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root.expanduser()))

    @property
    def uri(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    def read(self, key: str, *, into: Path | None = None) -> bytes:
        """See `ArtifactStore.read`."""
        path = self._path(key)
        try:
            if into is None:
                return path.read_bytes()
            shutil.copyfile(path, into)
        except FileNotFoundError as error:
            raise ArtifactIncomplete(f"{self.uri} holds no {key}") from error
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
        return b""

    def write(self, key: str, source: bytes | Path, *, if_absent: bool = False) -> bool:
        """See `ArtifactStore.write`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        except OSError as error:
            raise ArtifactError(
                f"cannot write to the store {self.uri}: {error.strerror}; "
                "choose a folder that you may write to (store=...)"
            ) from error
        try:
            with os.fdopen(handle, "wb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                else:
                    with source.open("rb") as content:
                        shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
            return self._put_in_place(Path(name), path, if_absent=if_absent)
        except OSError as error:
            raise ArtifactError(f"cannot write {path}: {error.strerror}") from error
        finally:
            Path(name).unlink(missing_ok=True)

    def list(self, prefix: str) -> list[str]:
        """See `ArtifactStore.list`."""
        # Only the folder that the prefix lies in is walked.
        start = self.root / prefix.rpartition("/")[0]
        keys = (
            str(path.relative_to(self.root))
            for path in start.rglob("*")
            if path.is_file() and not path.is_symlink() and not path.name.startswith(_TEMPORARY)
        )
        return sorted(key for key in keys if key.startswith(prefix))

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
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise ArtifactError(f"key {key!r} leads out of the store {self.uri} by a link")
        return path

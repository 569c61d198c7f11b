"""A mapping whose values lie in a temporary file: memory stays the same however many there are.

    lines = Spool[bytes](dump=bytes, load=bytes)
    lines["k"] = b"..."
    for key, line in lines.in_order(): ...

For what grows with a data set: responses of a ledger, problems that a teacher is shown, the
knowledge that came back. It is SQLite's private temporary database, in the folder that `TMPDIR`
names, and is gone with the process that made it; nothing in it is meant to outlive a crash.
"""

import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Generic, TypeVar

from lorid.errors import ArtifactError

CACHE_KIB = 32 * 1024
"""Held in memory at most; what is beyond it is written to the file."""
V = TypeVar("V")


class Spool(MutableMapping[str, V], Generic[V]):
    """Values by key, in the order in which the keys came; one that is set again keeps its place.

    Any thread may use it, one at a time.

    Raises:
        ArtifactError: the temporary folder is full or cannot be written.
    """

    def __init__(self, *, dump: Callable[[V], bytes], load: Callable[[bytes], V]) -> None:
        self._dump, self._load = dump, load
        self._size = 0
        # No name: a file that is deleted as soon as it is open.
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size=-{CACHE_KIB}", "journal_mode=OFF", "synchronous=OFF"):
            self._base.execute(f"PRAGMA {setting}")
        self._base.execute("CREATE TABLE spool (key TEXT UNIQUE, value BLOB)")
        # Never committed: each statement would be a transaction of its own.
        self._base.execute("BEGIN")

    def add(self, key: str, value: V) -> bool:
        """Set the value of a new key; False, and nothing is changed, when the key is there."""
        new = "INSERT INTO spool VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
        is_new = self._run(new, key, self._dump(value)).rowcount > 0
        self._size += is_new
        return is_new

    def in_order(self) -> Iterator[tuple[str, V]]:
        """Keys and values, one at a time."""
        for key, value in self._run("SELECT key, value FROM spool ORDER BY rowid"):
            yield key, self._load(value)

    def __setitem__(self, key: str, value: V) -> None:
        if not self.add(key, value):
            self._run("UPDATE spool SET value = ? WHERE key = ?", self._dump(value), key)

    def __getitem__(self, key: str) -> V:
        row = self._run("SELECT value FROM spool WHERE key = ?", key).fetchone()
        if row is None:
            raise KeyError(key)
        return self._load(row[0])

    def __delitem__(self, key: str) -> None:
        if not self._run("DELETE FROM spool WHERE key = ?", key).rowcount:
            raise KeyError(key)
        self._size -= 1

    def __contains__(self, key: object) -> bool:
        return self._run("SELECT 1 FROM spool WHERE key = ?", key).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        return (key for (key,) in self._run("SELECT key FROM spool ORDER BY rowid"))

    def __len__(self) -> int:
        return self._size

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._base.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise ArtifactError(
                f"cannot keep data in the temporary folder: {error}; free some space, or set "
                "TMPDIR to a folder that has some"
            ) from error

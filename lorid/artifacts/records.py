"""Artifacts and their records: complete or absent, and traceable.

Layout in a store::

    blobs/<sha256>                        file contents, written first
    {kind}/{name}/{version}/record.json   what the artifact is, written last and only if absent

An artifact exists when its record does. Contents lie under their own hash, so racing writers cannot
mix; the record's conditional write lets one of them win. Readers verify size and hash.
"""

import getpass
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lorid.artifacts.at_once import all_at_once, each_at_once
from lorid.artifacts.pickles import refuse_pickle
from lorid.artifacts.progress import Amount, transfer_shown
from lorid.artifacts.store import Advance, ArtifactStore, checked_key
from lorid.artifacts.versions import code_version, package_versions
from lorid.errors import ArtifactDrifted, ArtifactError, ArtifactIncomplete, explained_os_error

Kind = Literal["data", "knowledge", "adapter", "triple", "merged", "evaluation", "report"]
Scalar = str | int | float | bool | None
Detail = Scalar | list[Scalar] | dict[str, Scalar]
SCHEMA_VERSION = 2
"""Of records. 1 had neither `schema_version` nor `code_version`; it is still read."""
# Small files are mostly waiting for answers: fetching them is twice as fast with 24 as with 8.
NUM_FILES_AT_ONCE = 8
NUM_SMALL_FILES_AT_ONCE = 24
SMALL_BYTES = 1024**2
MAX_SHOWN_CHARS = 60
# Contents are uploaded again, or their times renewed, until a round took less than this, so that
# `lorid store gc`, whose grace period is longer, never meets an old one that is about to be named.
FRESH_S = 3600.0


class FileEntry(BaseModel):
    """One file of an artifact; `size` in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int = Field(ge=0)
    sha256: str

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        try:
            return checked_key(path)
        except ArtifactError as error:
            raise ValueError(str(error)) from error

    @field_validator("sha256")
    @classmethod
    def _is_hash(cls, sha256: str) -> str:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError("not a SHA-256")
        return sha256


class Record(BaseModel):
    """What an artifact is, what it was made from, and its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str
    version: str
    fingerprint: str
    inputs: dict[str, Any]
    parents: tuple[str, ...]
    files: tuple[FileEntry, ...]
    details: dict[str, Detail]
    packages: dict[str, str]
    created_at: str
    created_by: str
    seconds: float
    schema_version: int = 1
    code_version: str | None = None

    @field_validator("files")
    @classmethod
    def _names_differ(cls, files: tuple[FileEntry, ...]) -> tuple[FileEntry, ...]:
        if len({entry.path for entry in files}) != len(files):
            raise ValueError("two files have one path")
        return files

    @field_validator("parents")
    @classmethod
    def _are_addresses(cls, parents: tuple[str, ...]) -> tuple[str, ...]:
        for parent in parents:
            try:
                checked_key(parent)
            except ArtifactError as error:
                raise ValueError(str(error)) from error
        return parents

    @property
    def address(self) -> str:
        """`{kind}/{name}/{version}`."""
        return f"{self.kind}/{self.name}/{self.version}"


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of the inputs in canonical JSON.

    Raises:
        TypeError, ValueError: a value has no exact JSON form, such as an object or NaN.
    """
    text = json.dumps(
        _plain(inputs), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def version_of(inputs: Mapping[str, Any]) -> str:
    """The version that these inputs give an artifact."""
    return fingerprint(inputs)[:12]


def publish(
    store: ArtifactStore,
    folder: Path,
    *,
    kind: Kind,
    name: str,
    inputs: Mapping[str, Any],
    parents: Sequence[str] = (),
    details: Mapping[str, Detail] | None = None,
    seconds: float = 0.0,
) -> Record:
    """Upload a folder's files, then write the record; returns the record that is in the store.

    When another writer published the same inputs first, its record is returned.

    Raises:
        ArtifactError: the store cannot be written, or a file is pickled or a link.
    """
    entries = _upload_all(store, folder, label=f"{kind}/{name}")
    record = Record(
        kind=kind,
        name=name,
        version=version_of(inputs),
        fingerprint=fingerprint(inputs),
        inputs=dict(_plain(inputs)),
        parents=tuple(parents),
        files=entries,
        details=dict(details or {}),
        packages=dict(package_versions()),
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        created_by=f"{_user()}@{platform.node()}",
        seconds=round(seconds, 2),
        schema_version=SCHEMA_VERSION,
        code_version=code_version(),
    )
    text = record.model_dump_json(indent=1).encode()
    if store.write(f"{record.address}/record.json", text, if_absent=True):
        return record
    return load_record(store, record.address)


def load_record(store: ArtifactStore, address: str) -> Record:
    """The record at an address.

    Raises:
        ArtifactIncomplete: there is none.
        ArtifactDrifted: it is damaged.
    """
    text = store.read(f"{address}/record.json")
    try:
        record = Record.model_validate_json(text)
    except ValidationError as error:
        if (schema := _schema_of(text)) > SCHEMA_VERSION:
            raise ArtifactError(
                f"{address}/record.json in {store.uri} was written by a newer lorid (schema "
                f"{schema}, this one reads up to {SCHEMA_VERSION}); upgrade lorid"
            ) from error
        raise ArtifactDrifted(
            f"{address}/record.json in {store.uri} is damaged: {error.errors()[0]['msg']}; "
            "delete it to make the artifact again"
        ) from error
    if record.address != address or record.fingerprint != fingerprint(record.inputs):
        raise ArtifactDrifted(f"{address}/record.json in {store.uri} does not describe {address}")
    return record


def find(
    store: ArtifactStore, *, kind: Kind, name: str, inputs: Mapping[str, Any]
) -> Record | None:
    """The finished artifact of these inputs, if there is one."""
    try:
        return load_record(store, f"{kind}/{name}/{version_of(inputs)}")
    except ArtifactIncomplete:
        return None


def fetch(store: ArtifactStore, record: Record, *, into: Path) -> Path:
    """Download an artifact's files, several at once, verified, and return the folder.

    A file that is there already and right is kept, so an interrupted fetch goes on.

    Raises:
        ArtifactIncomplete: a file is missing from the store.
        ArtifactDrifted: a file differs from the record, or is pickled.
        ArtifactError: the folder cannot be written, or a path in it is a link.
    """
    amount = Amount(
        num_files=len(record.files), num_bytes=sum(entry.size for entry in record.files)
    )
    with transfer_shown(f"fetching {record.address}", amount) as advance:
        all_at_once(
            lambda entry: _fetch_file(store, record, entry, into=into, advance=advance),
            record.files,
            num_at_once=_num_at_once(amount),
        )
    return into


def list_records(
    store: ArtifactStore, *, kind: Kind | None = None, name: str | None = None
) -> list[Record]:
    """Records in the store, oldest first; all of them in memory."""
    return sorted(iter_records(store, kind=kind, name=name), key=by_age)


def iter_records(
    store: ArtifactStore, *, kind: Kind | None = None, name: str | None = None
) -> Iterator[Record]:
    """Records in the store by address, a few of them in memory."""
    kinds: tuple[Kind, ...] = (kind,) if kind else get_args(Kind)
    addresses = (
        address
        for one in kinds
        for address in addresses_below(store, f"{one}/{name}/" if name else f"{one}/")
    )
    yield from load_records(store, addresses)


def addresses_below(store: ArtifactStore, prefix: str) -> list[str]:
    """Addresses of artifacts that begin with `prefix`, sorted."""
    return [
        address
        for key in store.list(prefix)
        for address, _, last in [key.rpartition("/")]
        if last == "record.json" and address.count("/") == 2
    ]


def load_records(store: ArtifactStore, addresses: Iterable[str]) -> Iterator[Record]:
    """The records at these addresses in their order; several are read at once, ahead of need."""
    return each_at_once(
        lambda address: load_record(store, address),
        addresses,
        num_at_once=NUM_SMALL_FILES_AT_ONCE,
    )


def by_age(record: Record) -> tuple[str, str]:
    """Sorts records oldest first; those of one moment (older ones name the second) by address."""
    return record.created_at, record.address


def differences(record: Record, inputs: Mapping[str, Any]) -> list[str]:
    """How other inputs differ from a record's: `training.rank: 32 -> 64`, `seed: only now`."""
    new = _plain(inputs)
    found: list[str] = []
    for key in sorted(record.inputs.keys() | new.keys()):
        if key not in new:
            found.append(f"{key}: {_short(record.inputs[key])} -> not an input any more")
        elif key not in record.inputs:
            found.append(f"{key}: not an input before -> {_short(new[key])}")
        elif record.inputs[key] != new[key]:
            found.append(f"{key}: {_short(record.inputs[key])} -> {_short(new[key])}")
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    # A round trip, so that tuples and lists, or keys of other types, cannot differ by themselves.
    return json.loads(json.dumps(dict(inputs), allow_nan=False))


def _files_of(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink():
            raise ArtifactError(f"{path} is a link; an artifact holds plain files")
    return [path for path in paths if path.is_file()]


def _upload_all(store: ArtifactStore, folder: Path, *, label: str) -> tuple[FileEntry, ...]:
    paths = _files_of(folder)
    for path in paths:
        refuse_pickle(path)
    amount = Amount(num_files=len(paths), num_bytes=sum(path.stat().st_size for path in paths))
    entries: list[FileEntry] = []
    for _ in range(3):
        started = time.monotonic()
        with transfer_shown(f"storing {label}", amount) as advance:
            entries = all_at_once(
                lambda path: _upload(store, path, folder=folder, advance=advance),
                paths,
                num_at_once=_num_at_once(amount),
            )
        if time.monotonic() - started < FRESH_S:
            break
    return tuple(entries)


def _upload(store: ArtifactStore, path: Path, *, folder: Path, advance: Advance) -> FileEntry:
    before = path.stat()
    size, sha256 = _measure(path)
    entry = FileEntry(path=path.relative_to(folder).as_posix(), size=size, sha256=sha256)
    store.write(f"blobs/{sha256}", path, advance=advance)
    after = path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise ArtifactError(f"{path} changed while it was stored; publish it when it is finished")
    return entry


def _fetch_file(
    store: ArtifactStore, record: Record, entry: FileEntry, *, into: Path, advance: Advance
) -> None:
    target = into / entry.path
    if os.path.realpath(target) != os.path.join(os.path.realpath(into), entry.path):
        raise ArtifactError(f"{target} is a link or below one; remove it, or choose another folder")
    expected = (entry.size, entry.sha256)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _measure(target) == expected:
            advance(entry.size)
        else:
            _fetch_verified(store, record, entry, into=target, advance=advance)
        refuse_pickle(target)
    except OSError as error:
        raise ArtifactError(explained_os_error(error, doing=f"write {target}")) from error


def _fetch_verified(
    store: ArtifactStore, record: Record, entry: FileEntry, *, into: Path, advance: Advance
) -> None:
    # Twice, since what differs may have been damaged on its way.
    size = -1
    for _ in range(2):
        arriving = into.with_name(f".{into.name}.fetching")
        store.read(f"blobs/{entry.sha256}", into=arriving, advance=advance)
        size, sha256 = _measure(arriving)
        if (size, sha256) == (entry.size, entry.sha256):
            arriving.replace(into)
            return
        arriving.unlink()
    raise ArtifactDrifted(
        f"{record.address}: {entry.path} differs from its record "
        f"({size} bytes, expected {entry.size}); restore blobs/{entry.sha256}"
    )


def _num_at_once(amount: Amount) -> int:
    is_small = amount.num_bytes < SMALL_BYTES * amount.num_files
    return NUM_SMALL_FILES_AT_ONCE if is_small else NUM_FILES_AT_ONCE


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _schema_of(text: bytes) -> int:
    try:
        schema = json.loads(text).get("schema_version", 1)
    except (ValueError, AttributeError):
        return 1
    return schema if isinstance(schema, int) else 1


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"

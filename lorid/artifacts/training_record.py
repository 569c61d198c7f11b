"""`training.json`: how an adapter came to be, beside its weights.

    record = read_training_record(folder)     # None where there is none, as in published adapters

It stays with the adapter when that leaves its store: settings, seed, steps and losses, what was
learnt from, versions, and the base with its prompt family, which PEFT's own config has no room for.
Each step's metrics are in `metrics.jsonl`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from lorid.artifacts.adapters import WEIGHTS_FILE
from lorid.artifacts.triples import BaseIdentity, Sha256, Source, TripleManifest, file_sha256
from lorid.config import NAME_PATTERN, Section
from lorid.errors import AdapterMismatch, ArtifactDrifted
from lorid.method.roles import Role

TRAINING_FILE = "training.json"
MAX_RECORD_BYTES = 1024**2
FileName = Annotated[str, Field(pattern=r"^\w[\w.-]{0,99}(/\w[\w.-]{0,99})?$")]
Count = Annotated[int, Field(ge=0)]


class TrainingResult(Section):
    """What the steps came to; `step` is the one whose weights these are.

    `num_workers` is how many took part, one number for each time that it changed.
    """

    step: Count
    num_steps: Count
    first_loss: float | None
    last_loss: float | None
    best_step: Count | None = None
    best_validation_loss: float | None = None
    num_examples: Count
    num_dropped_too_long: Count
    num_truncated: Count
    num_untargeted: Count = 0
    num_workers: str
    train_seconds: float


class TrainingRecord(Section):
    """All about one training; `settings` are those of the config's `training` section.

    `started_from` is the hash of the weights that it went on from, `files` are the tokenizer's.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    role: Role
    weights_sha256: Sha256
    base: BaseIdentity
    settings: dict[str, JsonValue]
    seed: int
    started_from: Sha256 | None = None
    result: TrainingResult
    knowledge: Source
    data: Source
    tokenizer_files: Annotated[tuple[FileName, ...], Field(max_length=100)]
    packages: dict[str, str]
    code_version: str
    trained_at: str


def read_training_record(folder: Path) -> TrainingRecord | None:
    """The record in an adapter's folder; None where there is none.

    Raises:
        ArtifactDrifted: it is damaged, of another version of lorid, or of other weights.
    """
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise ArtifactDrifted(f"{path}: larger than {MAX_RECORD_BYTES} bytes")
    try:
        record = TrainingRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise ArtifactDrifted(
            f"{path}: {field}: {first['msg']}; it is damaged, or of another version of lorid; "
            "the adapter works without it: delete it if the weights are known to be right"
        ) from error
    if record.weights_sha256 != file_sha256(folder / WEIGHTS_FILE):
        raise ArtifactDrifted(f"{path} tells of other weights than {WEIGHTS_FILE} beside it")
    return record


def write_training_record(record: TrainingRecord, folder: Path) -> None:
    """Write it beside the weights; `read_training_record` reads it back equal."""
    text = record.model_dump_json(indent=1) + "\n"
    (folder / TRAINING_FILE).write_text(text, encoding="utf-8")


def check_trained_for(
    folder: Path, *, base: BaseIdentity, role: Role | None = None
) -> TrainingRecord | None:
    """Compare an adapter's record, where it has one, with a base and a role; returns the record.

    Shapes cannot tell two bases of one architecture apart, nor one base's prompt families.

    Raises:
        AdapterMismatch: it was trained on another base, for another prompt family or role.
        ArtifactDrifted: the record is damaged.
    """
    record = read_training_record(folder)
    if record is None:
        return None
    if record.base.family != base.family:
        raise AdapterMismatch(
            f"{folder}: trained with prompts of family {record.base.family!r}, not "
            f"{base.family!r}; set student.family={record.base.family}"
        )
    if record.base.identity != base.identity and not _may_be_one(record.base, base):
        raise AdapterMismatch(
            f"{folder}: trained on {record.base.name} ({record.base.identity}), not on "
            f"{base.name} ({base.identity}); name its own base as student.path"
        )
    if role is not None and record.role != role:
        raise AdapterMismatch(f"{folder}: trained as {record.role}, not as {role}; swap the two")
    return record


def check_records(manifest: TripleManifest, folders: dict[Role, Path]) -> str:
    """A line about the training records of a triple's adapters.

    Raises:
        AdapterMismatch, ArtifactDrifted: one is damaged, or tells of another base or role.
    """
    found = [
        record
        for role, folder in folders.items()
        if (record := check_trained_for(folder, base=manifest.base, role=role)) is not None
    ]
    if not found:
        return f"no adapter has a {TRAINING_FILE}"
    return f"{len(found)} of {len(folders)}, of these weights, this base and these roles"


def _may_be_one(one: BaseIdentity, other: BaseIdentity) -> bool:
    """Whether two identities that differ may be of the same weights: no file here can tell.

    A hub's model may lie in a folder, and a revision may be named or not.
    """
    num_folders = sum(base.identity.startswith("folder:") for base in (one, other))
    return num_folders == 1 or (not num_folders and one.name == other.name)

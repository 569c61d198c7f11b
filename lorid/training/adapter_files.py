"""What lies beside a trained adapter's weights: tokenizer, training record, card.

    origin = Origin(config=config, base=identify_base(config.student), knowledge=..., data=...)
    complete_adapter(folder, origin=origin, role=role, details=details)

A checkpoint has the weights and what a resume needs; this makes of it a folder that PEFT, vLLM and
a reader can use without the run that it came from.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from lorid.artifacts.adapters import WEIGHTS_FILE, read_adapter_config
from lorid.artifacts.cards import trained_adapter_card
from lorid.artifacts.training_record import TrainingRecord, TrainingResult, write_training_record
from lorid.artifacts.triples import BaseIdentity, Source, file_sha256
from lorid.artifacts.versions import code_version, package_versions
from lorid.config import RunConfig
from lorid.errors import TrainingError, explained_os_error
from lorid.jsonl import read_jsonl
from lorid.method.roles import Role
from lorid.training.adapters import load_tokenizer
from lorid.training.track import METRICS_FILE


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the adapters of one run have in common."""

    config: RunConfig
    base: BaseIdentity
    knowledge: Source
    data: Source


def complete_adapter(
    folder: Path, *, origin: Origin, role: Role, details: Mapping[str, Any]
) -> TrainingRecord:
    """Add to weights, config and metrics what makes the folder whole; returns its record.

    `details` are the worker's: how many examples, what was too long, how many workers.

    Raises:
        TrainingError: the files cannot be written.
    """
    try:
        tokenizer_files = save_tokenizer(load_tokenizer(origin.config.student), folder)
        record = _record(
            folder, origin=origin, role=role, details=details, tokenizer_files=tokenizer_files
        )
        write_training_record(record, folder)
        (folder / "README.md").write_text(trained_adapter_card(record), encoding="utf-8")
    except OSError as error:
        raise TrainingError(explained_os_error(error, doing=f"write {folder}")) from error
    return record


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[str, ...]:
    """Write the tokenizer's files into the folder; returns their names."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tokenizer-") as temporary:
        made = Path(temporary)
        tokenizer.save_pretrained(temporary)
        names = sorted(
            path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()
        )
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (made / name).replace(folder / name)
    return tuple(names)


def _record(
    folder: Path,
    *,
    origin: Origin,
    role: Role,
    details: Mapping[str, Any],
    tokenizer_files: tuple[str, ...],
) -> TrainingRecord:
    config, training = origin.config, origin.config.training
    settings = training.model_dump(mode="json", exclude={"start_from", "num_epochs_by_role"})
    start = training.start_from.get(role)
    # Of a base from a hub the adapter knows the very commit.
    revision = read_adapter_config(folder).revision or origin.base.revision
    rows = [row for _, row in read_jsonl(folder / METRICS_FILE)]
    return TrainingRecord(
        name=config.name,
        role=role,
        weights_sha256=file_sha256(folder / WEIGHTS_FILE),
        base=origin.base.model_copy(update={"revision": revision}),
        settings={**settings, "num_epochs": training.epochs_of(role)},
        seed=config.seed,
        started_from=file_sha256(Path(start) / WEIGHTS_FILE) if start else None,
        result=_result(rows, details=details, publish=training.publish),
        knowledge=origin.knowledge,
        data=origin.data,
        tokenizer_files=tokenizer_files,
        packages=dict(package_versions()),
        code_version=code_version(),
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _result(
    rows: Sequence[Mapping[str, Any]], *, details: Mapping[str, Any], publish: str
) -> TrainingResult:
    best = cast("int | None", details.get("best_step"))
    return TrainingResult(
        step=best if publish == "best" and best is not None else details["step"],
        num_steps=rows[-1]["num_steps"] if rows else 0,
        first_loss=rows[0]["loss"] if rows else None,
        last_loss=rows[-1]["loss"] if rows else None,
        best_step=best,
        best_validation_loss=details.get("best_validation_loss"),
        num_examples=details["num_examples"],
        num_dropped_too_long=details["num_dropped_too_long"],
        num_truncated=details["num_truncated"],
        num_untargeted=details.get("num_untargeted", 0),
        num_workers=str(details["num_workers"]),
        train_seconds=details["train_seconds"],
    )

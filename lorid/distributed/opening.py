"""A run, opened: its config with absolute paths, its store, and where its lines go.

    run = open_run(config)
    with fetched(run.store, record) as folder: ...       # the files of an artifact

Models are looked at here, before anything starts: a folder must hold what an engine will ask for.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lorid.artifacts.adapters import WEIGHTS_FILE
from lorid.artifacts.records import Record, fetch
from lorid.artifacts.store import ArtifactStore, Sweepable, open_store
from lorid.artifacts.triples import HUB_ID
from lorid.config import ModelConfig, RunConfig
from lorid.errors import ConfigError
from lorid.method.roles import Role

# A tokenizer that is missing is not an error to transformers: it makes up an empty one.
MODEL_FILES = {
    "model config": "config.json",
    "tokenizer": "tokenizer[._]*",
    "weights, which must be safetensors": "*.safetensors",
}
Announce = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A config with absolute paths, its open store, and where lines for the user go."""

    config: RunConfig
    store: Sweepable
    announce: Announce


def open_run(config: RunConfig, *, announce: Announce | None = None) -> Run:
    """Resolve local paths, since workers start in other folders, and open the store.

    Raises:
        ConfigError: a model is neither a whole folder nor a hub id, or an adapter to go on from
            is not there.
        ArtifactError: the store cannot be opened.
    """
    store = open_store(config.store)
    teacher, training = config.teacher, config.training
    if teacher.kind == "vllm":
        found = _found(teacher.vllm_model, field="teacher.model")
        teacher = teacher.model_copy(update={"model": found})
    starts = {role: _start(folder, role) for role, folder in training.start_from.items()}
    resolved = config.model_copy(
        update={
            "store": store.uri,
            "student": _found(config.student, field="student"),
            "teacher": teacher,
            "training": training.model_copy(update={"start_from": starts}),
        }
    )
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    return Run(config=resolved, store=store, announce=announce or console.print)


def _start(path: str, role: Role) -> str:
    """An adapter to go on from; its content is looked at by `lorid.training.checks`."""
    folder = Path(path).expanduser().resolve()
    if not (folder / WEIGHTS_FILE).is_file():
        raise ConfigError(
            f"training.start_from.{role}: {folder} holds no {WEIGHTS_FILE}; name the folder of a "
            "PEFT adapter (`hf download` fetches one from the hub)"
        )
    return str(folder)


@contextmanager
def fetched(store: ArtifactStore, record: Record) -> Iterator[Path]:
    """An artifact's files in a temporary folder, for the duration of the block."""
    with tempfile.TemporaryDirectory(prefix="lorid-", ignore_cleanup_errors=True) as folder:
        yield fetch(store, record, into=Path(folder))


def _found(model: ModelConfig, *, field: str) -> ModelConfig:
    path = Path(model.path).expanduser()
    if path.is_dir():
        for what, pattern in MODEL_FILES.items():
            if not any(path.glob(pattern)):
                raise ConfigError(f"{field}.path: {path} holds no {what} ({pattern})")
        return model.model_copy(update={"path": str(path.resolve())})
    if not HUB_ID.fullmatch(model.path):
        raise ConfigError(f"{field}.path: {model.path} is neither a folder nor a hub id (org/name)")
    return model

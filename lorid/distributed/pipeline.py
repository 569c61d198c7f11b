"""The pipeline: five stages, each an artifact with a record, each skipped when it is done.

    prepare ---> knowledge ---> train IR, KG, DR ---> evaluate ---> report
    data         knowledge      adapter x 3, triple   evaluation    report

    run_pipeline(load_config("run.yaml"))

What a stage's artifact depends on is its *inputs*; their fingerprint is its version. Buckets,
workers and node types are not inputs.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lorid.artifacts.records import Kind, Record, fetch, publish
from lorid.artifacts.stages import run_stage
from lorid.artifacts.store import ArtifactStore, open_store
from lorid.config import ModelConfig, RunConfig, dump_config
from lorid.errors import ArtifactIncomplete, ConfigError, DataError
from lorid.method.roles import Role

ALL_STAGES = ("prepare", "knowledge", "train", "evaluate", "report")
GENERATOR_VERSION = 2
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
Announce = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A config with absolute paths, its open store, and where lines for the user go."""

    config: RunConfig
    store: ArtifactStore
    announce: Announce


def run_pipeline(
    config: RunConfig,
    *,
    stages: Sequence[str] = ALL_STAGES,
    announce: Announce | None = None,
) -> dict[str, Record]:
    """Run the named stages in order; returns the record of each, and "triple".

    A stage whose inputs are missing from the store says which stage to run first.

    Raises:
        LoridError: with one line for the user; finished stages stay finished.
    """
    from lorid.distributed.cluster import connected, require_accelerators

    run = open_run(config, announce=announce)
    records: dict[str, Record] = {}
    with connected():
        require_accelerators(run.config, stages=stages)
        for stage in stages:
            run.announce(f"[{stage}]")
            records |= _STAGES[stage](run)
    return records


def open_run(config: RunConfig, *, announce: Announce | None = None) -> Run:
    """Resolve local paths, since workers start in other folders, and open the store."""
    store = open_store(config.store)
    teacher = config.teacher
    resolved = config.model_copy(
        update={
            "store": store.uri,
            "student": _found(config.student, field="student"),
            "teacher": teacher.model_copy(
                update={"model": _found(teacher.model, field="teacher.model")}
            ),
        }
    )
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    return Run(config=resolved, store=store, announce=announce or console.print)


def prepare(run: Run) -> dict[str, Record]:
    """Problems of both splits."""
    from lorid.distributed.preparation import write_splits

    record = run_stage(
        run.store,
        kind="data",
        name=run.config.name,
        inputs=data_inputs(run.config),
        parents=(),
        build=lambda folder: write_splits(run.config, folder),
        announce=run.announce,
    )
    if record.details["num_rejected"]:
        run.announce(
            f"  {record.details['num_rejected']} rows set aside, all in the artifact's "
            f"rejected.jsonl; the first: {record.details['first_rejected']}"
        )
    return {"prepare": record}


def knowledge(run: Run) -> dict[str, Record]:
    """Knowledge for the training problems."""
    from lorid.distributed.knowledge import generate_knowledge
    from lorid.distributed.preparation import read_split, write_jsonl
    from lorid.distributed.training import KNOWLEDGE_FILE

    data = _required(run, kind="data", inputs=data_inputs(run.config), stage="prepare")

    def build(folder: Path) -> Mapping[str, Any]:
        with _fetched(run.store, data) as source:
            result = generate_knowledge(run.config, read_split(source, "train"))
        write_jsonl(folder / KNOWLEDGE_FILE, (item.to_row() for item in result.kept))
        write_jsonl(folder / "rejects.jsonl", result.rejects)
        return result.details()

    record = run_stage(
        run.store,
        kind="knowledge",
        name=run.config.name,
        inputs=knowledge_inputs(run.config),
        parents=(data.address,),
        build=build,
        announce=run.announce,
    )
    return {"knowledge": record}


def train(run: Run) -> dict[str, Record]:
    """Three adapters at once, then the triple that binds them to their config."""
    from lorid.distributed.training import RoleJob, train_roles

    source = _required(
        run, kind="knowledge", inputs=knowledge_inputs(run.config), stage="knowledge"
    )
    missing = [role for role in Role if _adapter(run, role) is None]
    for role in Role:
        if role not in missing:
            run.announce(f"  {role}: already trained")

    def job_of(role: Role) -> RoleJob:
        inputs = adapter_inputs(run.config, role)

        def save(folder: Path, details: Mapping[str, Any]) -> None:
            record = publish(
                run.store,
                folder,
                kind="adapter",
                name=adapter_name(run.config, role),
                inputs=inputs,
                parents=(source.address,),
                details=_scalars(details),
                seconds=float(details.get("train_seconds", 0.0)),
            )
            run.announce(f"  {role}: {record.address}")

        digest = hashlib.sha256(repr(sorted(inputs.items())).encode()).hexdigest()[:12]
        return RoleJob(role=role, run_name=f"{run.config.name}-{role}-{digest}", publish=save)

    if missing:
        train_roles(
            run.config,
            jobs=[job_of(role) for role in missing],
            knowledge_address=source.address,
        )
    return {"triple": bind_triple(run)}


def bind_triple(run: Run) -> Record:
    """One artifact with the three adapters and the complete config: what Serve loads."""
    adapters = {role: _adapter(run, role) for role in Role}

    def build(folder: Path) -> Mapping[str, Any]:
        for role, record in adapters.items():
            if record is None:
                raise ArtifactIncomplete(f"the adapter of {role} is missing; run the train stage")
            fetch(run.store, record, into=folder / "adapters" / role)
        (folder / "config.yaml").write_text(dump_config(run.config))
        return {str(role): record.address for role, record in adapters.items() if record}

    return run_stage(
        run.store,
        kind="triple",
        name=run.config.name,
        inputs=triple_inputs(run.config),
        parents=tuple(record.address for record in adapters.values() if record),
        build=build,
        announce=run.announce,
    )


def evaluate(run: Run) -> dict[str, Record]:
    """The served triple on the test split, every attempt logged."""
    from lorid.distributed.evaluation import grade_split, served
    from lorid.distributed.preparation import read_split

    data = _required(run, kind="data", inputs=data_inputs(run.config), stage="prepare")
    triple = _required(run, kind="triple", inputs=triple_inputs(run.config), stage="train")

    def build(folder: Path) -> Mapping[str, Any]:
        with _fetched(run.store, data) as source:
            problems = read_split(source, "test")
        with served(run.config, triple_address=triple.address) as url:
            run.announce(f"  serving at {url}")
            return grade_split(run.config, problems, url=url, folder=folder)

    record = run_stage(
        run.store,
        kind="evaluation",
        name=run.config.name,
        inputs=evaluation_inputs(run.config),
        parents=(data.address, triple.address),
        build=build,
        announce=run.announce,
    )
    if record.details["num_errors"]:
        run.announce(
            f"  {record.details['num_errors']} of {record.details['num_problems']} problems failed "
            "in the endpoint and count as not answered"
        )
    return {"evaluate": record, "triple": triple}


def report(run: Run) -> dict[str, Record]:
    """The HTML report and the table on the terminal."""
    from lorid.distributed.reporting import collect
    from lorid.report.html import write_html
    from lorid.report.terminal import print_summary

    evaluation = _required(
        run, kind="evaluation", inputs=evaluation_inputs(run.config), stage="evaluate"
    )
    source = _required(
        run, kind="knowledge", inputs=knowledge_inputs(run.config), stage="knowledge"
    )
    triple = _required(run, kind="triple", inputs=triple_inputs(run.config), stage="train")
    adapters = {role: _adapter(run, role) for role in Role}
    data = collect(
        run.config,
        run.store,
        knowledge=source,
        adapters=adapters,
        triple=triple,
        evaluation=evaluation,
    )

    def build(folder: Path) -> Mapping[str, Any]:
        write_html(data, folder / "report.html")
        return {}

    record = run_stage(
        run.store,
        kind="report",
        name=run.config.name,
        inputs=evaluation_inputs(run.config),
        parents=(source.address, triple.address, evaluation.address),
        build=build,
        announce=run.announce,
    )
    print_summary(data, Console())
    return {"report": record}


_STAGES: dict[str, Callable[[Run], dict[str, Record]]] = {
    "prepare": prepare,
    "knowledge": knowledge,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}

# What each artifact depends on --------------------------------------------------------------------


def data_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the problems; for files their content, for the generator its version and seed."""
    inputs = _flat("data", config.data.model_dump(mode="json"))
    if config.data.source == "demo":
        return {**inputs, "generator": GENERATOR_VERSION, "seed": config.seed}
    if config.data.source == "jsonl":
        for split in ("train", "test"):
            path = Path(str(getattr(config.data, split)))
            inputs[f"data.{split}"] = _file_digest(path)
    return inputs


def knowledge_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the knowledge: the problems, the teacher, its prompt and its sampling."""
    from lorid.distributed.knowledge import read_template

    return {
        **data_inputs(config),
        **_model_inputs("teacher", config.teacher.model),
        **_flat("teacher.sampling", config.teacher.sampling.model_dump(mode="json")),
        "teacher.prompt": hashlib.sha256(read_template(config).encode()).hexdigest()[:16],
        "seed": config.seed,
    }


def adapter_inputs(config: RunConfig, role: Role) -> dict[str, Any]:
    """Inputs of one adapter: the knowledge, the student, the settings of this role."""
    placement = {
        "num_cpus", "num_gpus", "num_threads", "max_failures", "checkpoint_every_steps",
        "num_epochs", "num_epochs_by_role",
    }  # fmt: skip
    settings = config.training.model_dump(mode="json", exclude=placement)
    return {
        **knowledge_inputs(config),
        **_model_inputs("student", config.student),
        **_flat("training", settings),
        "training.num_epochs": config.training.epochs_of(role),
        "role": str(role),
    }


def triple_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the triple: those of its adapters, and how it answers by default."""
    inputs: dict[str, Any] = {}
    for role in Role:
        inputs |= {**adapter_inputs(config, role)}
        inputs[f"training.num_epochs.{role}"] = config.training.epochs_of(role)
    del inputs["role"], inputs["training.num_epochs"]
    return {
        **inputs,
        **_flat("sampling", config.sampling.model_dump(mode="json")),
        # Waves change what is wasted, never what is answered.
        **_flat("feedback", config.feedback.model_dump(mode="json", exclude={"max_wave_rounds"})),
    }


def evaluation_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the evaluation: the triple, the data and the base's turn."""
    return {**triple_inputs(config), "evaluation.grade_base": config.evaluation.grade_base}


def adapter_name(config: RunConfig, role: Role) -> str:
    """Name of a role's adapter in the store."""
    return f"{config.name}-{role}"


def _adapter(run: Run, role: Role) -> Record | None:
    from lorid.artifacts.records import find

    return find(
        run.store,
        kind="adapter",
        name=adapter_name(run.config, role),
        inputs=adapter_inputs(run.config, role),
    )


def _required(run: Run, *, kind: Kind, inputs: Mapping[str, Any], stage: str) -> Record:
    from lorid.artifacts.records import find

    record = find(run.store, kind=kind, name=run.config.name, inputs=dict(inputs))
    if record is None:
        raise ArtifactIncomplete(
            f"no {kind} of run {run.config.name!r} with this config in {run.store.uri}; "
            f"run the {stage} stage first (jobs/distill.py runs all of them)"
        )
    return record


class _fetched:  # noqa: N801 - reads as a verb at its call sites
    """An artifact's files in a temporary folder, for the duration of the block."""

    def __init__(self, store: ArtifactStore, record: Record) -> None:
        self.store, self.record = store, record
        self.folder = Path(tempfile.mkdtemp(prefix="lorid-"))

    def __enter__(self) -> Path:
        return fetch(self.store, self.record, into=self.folder)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _found(model: ModelConfig, *, field: str) -> ModelConfig:
    path = Path(model.path).expanduser()
    if path.is_dir():
        return model.model_copy(update={"path": str(path.resolve())})
    if not HUB_ID.fullmatch(model.path):
        raise ConfigError(f"{field}.path: {model.path} is neither a folder nor a hub id (org/name)")
    return model


def _model_inputs(prefix: str, model: ModelConfig) -> dict[str, Any]:
    path = Path(model.path)
    identity = _folder_digest(path) if path.is_dir() else f"{model.path}@{model.revision}"
    return {
        f"{prefix}.model": identity,
        f"{prefix}.family": model.family,
        f"{prefix}.dtype": model.dtype,
    }


def _folder_digest(folder: Path) -> str:
    """Content of a model folder: its weights, config and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model"):
            digest.update(path.name.encode() + _file_digest(path).encode())
    return f"folder:{digest.hexdigest()[:16]}"


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the config's path") from error


def _flat(prefix: str, section: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in section.items()}


def _scalars(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if isinstance(value, int | float | str)}

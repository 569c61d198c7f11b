"""The pipeline: five stages, each an artifact with a record, each skipped when it is done.

    prepare ---> knowledge ---> train IR, KG, DR ---> evaluate ---> report
    data         knowledge      adapter x 3, triple   evaluation    report

    run_pipeline(load_config("run.yaml"))

What a stage's artifact depends on is its *inputs*; their fingerprint is its version. Buckets,
workers and node types are not inputs.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lorid.artifacts.leases import held
from lorid.artifacts.records import Kind, Record, fetch, fingerprint, publish, version_of
from lorid.artifacts.stages import announce_differences, run_stage
from lorid.artifacts.store import ArtifactStore
from lorid.artifacts.triples import (
    MANIFEST_FILE,
    Source,
    dump_manifest,
    make_manifest,
    role_folders,
)
from lorid.config import RunConfig, dump_config
from lorid.distributed.inputs import (
    adapter_inputs,
    data_inputs,
    evaluation_inputs,
    knowledge_inputs,
    report_inputs,
    triple_inputs,
)
from lorid.distributed.opening import Announce, Run, open_run
from lorid.errors import ArtifactIncomplete
from lorid.method.roles import Role

ALL_STAGES = ("prepare", "knowledge", "train", "evaluate", "report")
STAGES_ON_RAY = ("knowledge", "train", "evaluate")


def run_pipeline(
    config: RunConfig,
    *,
    stages: Sequence[str] = ALL_STAGES,
    announce: Announce | None = None,
) -> dict[str, Record]:
    """Run the named stages in order; returns the record of each, and "triple".

    A stage whose inputs are missing from the store says which stage to run first. The run's name is
    held meanwhile, so that two drivers do not do its stages at once.

    Raises:
        RunTaken: another driver holds the name.
        LoridError: with one line for the user; finished stages stay finished.
    """
    from lorid.distributed.cluster import connected
    from lorid.distributed.room import require_room

    if "train" in stages:
        from lorid.training.trackers import check_trackers

        check_trackers(config.training.trackers)
    run = open_run(config, announce=announce)
    records: dict[str, Record] = {}
    before, on_ray = _split(stages)
    with held(run.store, config.name, announce=run.announce):
        for stage in before:
            records |= _announced(run, stage)
        if on_ray:
            with connected():
                require_room(
                    run.config, stages=[stage for stage in on_ray if not _is_done(run, stage)]
                )
                for stage in on_ray:
                    records |= _announced(run, stage)
    return records


def _split(stages: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What comes before the first stage on Ray, and the rest: bad data fails within a second."""
    first = next((i for i, stage in enumerate(stages) if stage in STAGES_ON_RAY), len(stages))
    return stages[:first], stages[first:]


def _is_done(run: Run, stage: str) -> bool:
    """Whether a stage will ask the cluster for nothing."""
    from lorid.artifacts.records import find

    if stage == "train":
        return all(_adapter(run, role) for role in Role)
    kind: Kind = "knowledge" if stage == "knowledge" else "evaluation"
    inputs = (knowledge_inputs if stage == "knowledge" else evaluation_inputs)(run.config)
    return find(run.store, kind=kind, name=run.config.name, inputs=inputs) is not None


def _announced(run: Run, stage: str) -> dict[str, Record]:
    run.announce(f"[{stage}]")
    return _STAGES[stage](run)


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
    from lorid.distributed.knowledge_files import write_knowledge
    from lorid.distributed.preparation import read_groups

    data = _required(run, kind="data", inputs=data_inputs(run.config), stage="prepare")

    def build(folder: Path) -> Mapping[str, Any]:
        with _fetched(run.store, data) as source:
            groups = read_groups(source)
            result = generate_knowledge(run.config, [group.source for group in groups])
            return write_knowledge(
                folder, config=run.config, data=source, groups=groups, result=result
            )

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
            run.announce(f"  {role}: already trained, skipped")
        else:
            announce_differences(
                run.store,
                kind="adapter",
                name=adapter_name(run.config, role),
                inputs=adapter_inputs(run.config, role),
                announce=run.announce,
            )

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
            run.announce(f"  {role}: {record.address}{_too_long(record)}")

        digest = hashlib.sha256(repr(sorted(inputs.items())).encode()).hexdigest()[:12]
        return RoleJob(role=role, run_name=f"{run.config.name}-{role}-{digest}", publish=save)

    if missing:
        train_roles(
            run.config,
            jobs=[job_of(role) for role in missing],
            knowledge_address=source.address,
            announce=run.announce,
        )
    return {"triple": bind_triple(run)}


def _too_long(record: Record) -> str:
    """What became of sequences over the cut-off, if there were any."""
    dropped, cut = (record.details.get(key, 0) for key in ("num_dropped_too_long", "num_truncated"))
    if not dropped and not cut:
        return ""
    return f" ({dropped} sequences over the cut-off dropped, {cut} cut)"


def bind_triple(run: Run) -> Record:
    """One artifact with the three adapters, the manifest and the run's config: what Serve loads."""
    adapters = {role: _adapter(run, role) for role in Role}

    def build(folder: Path) -> Mapping[str, Any]:
        addresses: dict[Role, str | None] = {}
        folders = role_folders(folder)
        for role, record in adapters.items():
            if record is None:
                raise ArtifactIncomplete(f"the adapter of {role} is missing; run the train stage")
            fetch(run.store, record, into=folders[role])
            addresses[role] = record.address
        manifest = make_manifest(
            run.config,
            folders=folders,
            addresses=addresses,
            data=_source("data", run.config, data_inputs(run.config)),
            knowledge=_source("knowledge", run.config, knowledge_inputs(run.config)),
        )
        (folder / MANIFEST_FILE).write_bytes(dump_manifest(manifest))
        (folder / "config.yaml").write_text(dump_config(run.config))
        return {str(role): address for role, address in addresses.items()}

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
        with served(run.config, triple=triple) as url:
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
    from lorid.report.analysis import analyse
    from lorid.report.files import write_report
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

    analysis = analyse(data)

    def build(folder: Path) -> Mapping[str, Any]:
        write_report(analysis, folder)
        return {}

    record = run_stage(
        run.store,
        kind="report",
        name=run.config.name,
        inputs=report_inputs(run.config),
        parents=(source.address, triple.address, evaluation.address),
        build=build,
        announce=run.announce,
    )
    print_summary(analysis, Console())
    return {"report": record}


_STAGES: dict[str, Callable[[Run], dict[str, Record]]] = {
    "prepare": prepare,
    "knowledge": knowledge,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}


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


def _source(kind: Kind, config: RunConfig, inputs: Mapping[str, Any]) -> Source:
    return Source(
        address=f"{kind}/{config.name}/{version_of(inputs)}", fingerprint=fingerprint(inputs)
    )


def _scalars(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if isinstance(value, int | float | str)}

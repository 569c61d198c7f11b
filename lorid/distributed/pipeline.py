"""The pipeline: five stages, each an artifact with a record, each skipped when it is done.

    prepare ---> knowledge ---> train IR, KG, DR ---> evaluate ---> report
    data         knowledge      adapter x 3, triple   evaluation    report

    run_pipeline(load_config("run.yaml"))

What a stage's artifact depends on is its *inputs*; their fingerprint is its version. Buckets,
workers and node types are not inputs.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from lorid.artifacts.leases import held
from lorid.artifacts.records import Kind, Record, fetch, find, fingerprint, publish, version_of
from lorid.artifacts.stages import announce_differences, run_stage
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
from lorid.distributed.opening import Announce, Run, fetched, open_run
from lorid.distributed.trained import (
    adapter_name,
    check_before_training,
    find_adapter,
    missing_roles,
)
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
    if "train" in stages:
        from lorid.training.trackers import check_trackers

        check_trackers(config.training.trackers)
    run = open_run(config, announce=announce)
    records: dict[str, Record] = {}
    with held(run.store, config.name, announce=run.announce), ExitStack() as ray:
        for number, stage in enumerate(stages):
            if stage in STAGES_ON_RAY:
                check_before_training(run, stages=stages[number:])
            # Not before it is needed: bad data fails within a second, and what is done or only to
            # be marked again needs no cluster.
            if _has_work_on_ray(run, stage):
                _connect(run, ray, stages=stages[number:])
            records |= _announced(run, stage)
    return records


def _has_work_on_ray(run: Run, stage: str) -> bool:
    """Whether the stage will start something on a cluster; evaluation connects by itself."""
    return stage in ("knowledge", "train") and not _is_done(run, stage)


def _connect(run: Run, ray: ExitStack, *, stages: Sequence[str]) -> None:
    """Stay connected to the end, and refuse at once what a later stage cannot get either."""
    from lorid.distributed.cluster import connected
    from lorid.distributed.room import require_room

    ray.enter_context(connected())
    to_come = [stage for stage in stages if stage in STAGES_ON_RAY and not _is_done(run, stage)]
    require_room(run.config, stages=to_come)


def _is_done(run: Run, stage: str) -> bool:
    """Whether a stage will ask the cluster for nothing."""
    if stage == "train":
        return not missing_roles(run)
    config = run.config
    kind: Kind = "knowledge" if stage == "knowledge" else "evaluation"
    inputs = knowledge_inputs(config) if stage == "knowledge" else evaluation_inputs(config)
    return find(run.store, kind=kind, name=config.name, inputs=inputs) is not None


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
        with fetched(run.store, data) as source:
            groups = read_groups(source)
            result = generate_knowledge(run.config, groups)
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
    missing = missing_roles(run)
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
            run.announce(f"  {role}: {record.address}{_left_out(record)}")

        digest = hashlib.sha256(repr(sorted(inputs.items())).encode()).hexdigest()[:12]
        return RoleJob(role=role, run_name=f"{run.config.name}-{role}-{digest}", publish=save)

    if missing:
        train_roles(
            run.config,
            jobs=[job_of(role) for role in missing],
            data=_data_source(run),
            knowledge=_knowledge_source(run),
            announce=run.announce,
        )
    return {"triple": bind_triple(run)}


def _left_out(record: Record) -> str:
    """What became of sequences over the cut-off, and without a target, if there were any."""
    counts = {
        "sequences over the cut-off dropped": record.details.get("num_dropped_too_long"),
        "cut": record.details.get("num_truncated"),
        "without a target left out": record.details.get("num_untargeted"),
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f" ({said})" if said else ""


def bind_triple(run: Run) -> Record:
    """One artifact with the three adapters, the manifest and the run's config: what Serve loads."""
    adapters = {role: find_adapter(run, role) for role in Role}

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
            data=_data_source(run),
            knowledge=_knowledge_source(run),
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
    """The triple on the test split, or on the questions that the config names."""
    from lorid.distributed.evaluation import Evaluated
    from lorid.distributed.evaluation import evaluate as evaluate_triple
    from lorid.distributed.findings import announce_result
    from lorid.distributed.preparation import load_questions, read_split

    config, settings = run.config, run.config.evaluation
    data = _required(run, kind="data", inputs=data_inputs(config), stage="prepare")
    triple = _required(run, kind="triple", inputs=triple_inputs(config), stage="train")

    def build(folder: Path) -> Mapping[str, Any]:
        with fetched(run.store, data) as source:
            if settings.questions is None:
                problems = read_split(source, "test")[: settings.num_questions]
            else:
                problems = load_questions(settings).problems
            subject = Evaluated(config=config, settings=settings, triple=triple, problems=problems)
            return evaluate_triple(subject, store=run.store, folder=folder, announce=run.announce)

    record = run_stage(
        run.store,
        kind="evaluation",
        name=config.name,
        inputs=evaluation_inputs(config),
        parents=(data.address, triple.address),
        build=build,
        announce=run.announce,
    )
    announce_result(record, run.announce)
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
    adapters = {role: find_adapter(run, role) for role in Role}
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


def _required(run: Run, *, kind: Kind, inputs: Mapping[str, Any], stage: str) -> Record:
    record = find(run.store, kind=kind, name=run.config.name, inputs=dict(inputs))
    if record is None:
        raise ArtifactIncomplete(
            f"no {kind} of run {run.config.name!r} with this config in {run.store.uri}; "
            f"run the {stage} stage first (jobs/distill.py runs all of them)"
        )
    return record


def _data_source(run: Run) -> Source:
    return _source("data", run.config, data_inputs(run.config))


def _knowledge_source(run: Run) -> Source:
    return _source("knowledge", run.config, knowledge_inputs(run.config))


def _source(kind: Kind, config: RunConfig, inputs: Mapping[str, Any]) -> Source:
    return Source(
        address=f"{kind}/{config.name}/{version_of(inputs)}", fingerprint=fingerprint(inputs)
    )


def _scalars(details: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if isinstance(value, int | float | str)}

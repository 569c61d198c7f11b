"""Collects what the report shows, from the artifacts of a run."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from lorid.artifacts.records import Record, fetch
from lorid.artifacts.store import ArtifactStore
from lorid.config import RunConfig, dump_config
from lorid.demo.generator import HELD_OUT_FAMILIES
from lorid.jsonl import read_jsonl
from lorid.method.roles import Role
from lorid.report.data import ReportData, read_loss_curve
from lorid.training.track import METRICS_FILE


def collect(
    config: RunConfig,
    store: ArtifactStore,
    *,
    knowledge: Record,
    adapters: Mapping[Role, Record | None],
    triple: Record,
    evaluation: Record,
) -> ReportData:
    """The report's data; fetches and verifies the files that it reads."""
    trained = {role: record for role, record in adapters.items() if record is not None}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fetch(store, evaluation, into=folder / "evaluation")
        curves = {
            role: read_loss_curve(fetch(store, record, into=folder / role) / METRICS_FILE)
            for role, record in trained.items()
        }
        attempts, base = (
            [row for _, row in read_jsonl(folder / "evaluation" / name)]
            for name in ("attempts.jsonl", "base.jsonl")
        )
    stage_seconds = {
        "knowledge": knowledge.seconds,
        "train (slowest role)": max(record.seconds for record in trained.values()),
        "evaluate": evaluation.seconds,
    }
    return ReportData(
        run_name=config.name,
        config_yaml=dump_config(config),
        rule=config.feedback.rule,
        max_rounds=config.feedback.max_rounds,
        on_exhaustion=config.feedback.on_exhaustion,
        tau=config.feedback.tau,
        attempts=attempts,
        base_answers=base or None,
        loss_curves=curves,
        knowledge_details=dict(knowledge.details),
        stage_seconds=stage_seconds,
        unseen_families=_unseen_families(config),
        records=[record.address for record in (knowledge, *trained.values(), triple, evaluation)],
    )


def _unseen_families(config: RunConfig) -> frozenset[str]:
    if config.data.source != "demo":
        return frozenset()
    return frozenset(" > ".join(chain) for chain in HELD_OUT_FAMILIES)

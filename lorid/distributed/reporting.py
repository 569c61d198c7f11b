"""Collects what the report shows, from the artifacts of a run."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lorid.artifacts.records import Record, fetch, load_record
from lorid.artifacts.store import ArtifactStore
from lorid.config import RunConfig, dump_config
from lorid.demo.generator import HELD_OUT_FAMILIES
from lorid.jsonl import read_jsonl
from lorid.method.attempts import LISTS
from lorid.method.paired import Paired
from lorid.method.roles import Role
from lorid.report.data import LossPoint, ReportData, StageCost, read_loss_curve
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
        compared = folder / "evaluation" / "compared.jsonl"  # not there before it was made
        others = {
            f"{row['against']}": Paired.from_dict(row)
            for _, row in (read_jsonl(compared) if compared.is_file() else ())
        }
    return ReportData(
        others=others,
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
        gate=config.teacher.gate.limits(),
        stages=[
            *(_prepare_cost(store, parent) for parent in knowledge.parents),
            _knowledge_cost(knowledge),
            *(_training_cost(role, record, curves[role]) for role, record in trained.items()),
            _evaluation_cost(evaluation, [*attempts, *base]),
        ],
        unseen_families=_unseen_families(config),
        records=[
            *knowledge.parents,
            *(one.address for one in (knowledge, *trained.values(), triple, evaluation)),
        ],
    )


def _prepare_cost(store: ArtifactStore, address: str) -> StageCost:
    return StageCost(stage="prepare", seconds=load_record(store, address).seconds)


def _knowledge_cost(record: Record) -> StageCost:
    details = record.details
    currency = details.get("currency")
    return StageCost(
        stage="knowledge",
        seconds=record.seconds,
        num_texts=cast("int | None", details.get("num_responses")),
        num_tokens=cast("int | None", details.get("num_generated_tokens")),
        spent=cast("float | None", details.get("spent")) if currency else None,
        currency=cast("str | None", currency),
    )


def _training_cost(role: Role, record: Record, curve: Sequence[LossPoint]) -> StageCost:
    return StageCost(
        stage=f"train {str(role).replace('_', ' ')}",
        seconds=record.seconds,
        num_tokens=sum(point.num_tokens for point in curve),
    )


def _evaluation_cost(record: Record, rows: Sequence[Mapping[str, Any]]) -> StageCost:
    """Texts of the rounds that were used, and the base model's, whose tokens nobody counted."""
    texts = [text for row in rows for name in LISTS for text in row.get(name, [])]
    return StageCost(
        stage="evaluate",
        seconds=record.seconds,
        num_texts=len(texts) + sum("text" in row for row in rows),
        num_tokens=sum(text.get("num_tokens", 0) for text in texts if isinstance(text, dict)),
    )


def _unseen_families(config: RunConfig) -> frozenset[str]:
    if config.data.source != "demo":
        return frozenset()
    return frozenset(" > ".join(chain) for chain in HELD_OUT_FAMILIES)

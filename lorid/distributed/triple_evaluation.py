"""Evaluating a triple by itself, without the config of the run that made it.

    record = evaluate_triple(store, "mistral", settings=["questions=gsm8k_test.jsonl"], ...)

The endpoint's settings are the manifest's own with the caller's changes; the questions are a file's
or the hub's, or the test split of the data that the triple was trained on, where the store has it.
Of that data also comes what the questions are compared with for decontamination.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lorid.artifacts.leases import held
from lorid.artifacts.records import Record, fetch, load_record
from lorid.artifacts.stages import run_stage
from lorid.artifacts.store import ArtifactStore, Sweepable
from lorid.artifacts.triples import TripleManifest, read_manifest, resolve_triple
from lorid.config import EndpointConfig, change_endpoint, change_section
from lorid.distributed.evaluation import Evaluated, evaluate
from lorid.distributed.findings import Announce, announce_result
from lorid.distributed.inputs import question_inputs
from lorid.distributed.preparation import load_questions, read_split
from lorid.errors import ArtifactIncomplete, DataError
from lorid.method.grader import GRADER_VERSION
from lorid.method.problems import Problem
from lorid.serving import EvaluationConfig


def evaluate_triple(
    store: Sweepable,
    reference: str,
    *,
    overrides: Sequence[str],
    settings: Sequence[str],
    announce: Announce,
) -> Record:
    """The record of a triple's evaluation, made where there is none yet.

    Raises:
        LoridError: with one line for the user; what was answered is logged.
    """
    triple = resolve_triple(store, reference)
    manifest = read_manifest(store, triple)
    config = change_endpoint(manifest.endpoint(store=store.uri), overrides, source=triple.address)
    used = change_section(EvaluationConfig(), settings, source="evaluation")
    with ExitStack() as stack:
        stack.enter_context(held(store, config.name, announce=announce))
        data = _data(store, manifest, into=stack)

        def build(folder: Path) -> Mapping[str, Any]:
            subject = Evaluated(
                config=config,
                settings=used,
                triple=triple,
                problems=_problems(used, data, triple=triple),
                training=data / "train.jsonl" if data else None,
            )
            return evaluate(subject, store=store, folder=folder, announce=announce)

        record = run_stage(
            store,
            kind="evaluation",
            name=config.name,
            inputs=_inputs(config, used, triple=triple),
            parents=tuple(filter(None, (triple.address, manifest.data and manifest.data.address))),
            build=build,
            announce=announce,
        )
    announce_result(record, announce)
    return record


def _data(store: ArtifactStore, manifest: TripleManifest, *, into: ExitStack) -> Path | None:
    """The data that the triple was trained on, when the store has it."""
    if manifest.data is None:
        return None
    folder = into.enter_context(tempfile.TemporaryDirectory(prefix="lorid-"))
    try:
        return fetch(store, load_record(store, manifest.data.address), into=Path(folder))
    except ArtifactIncomplete:  # an imported triple names what another store has
        return None


def _problems(used: EvaluationConfig, data: Path | None, *, triple: Record) -> Sequence[Problem]:
    if used.questions is not None:
        return load_questions(used).problems
    if data is None:
        raise DataError(
            f"the store has not the data of {triple.address}; name questions: "
            "--questions test.jsonl, or ID:CONFIG:SPLIT of the hub"
        )
    return read_split(data, "test")[: used.num_questions]


def _inputs(config: EndpointConfig, used: EvaluationConfig, *, triple: Record) -> dict[str, Any]:
    sections = {"sampling": config.sampling, "feedback": config.feedback}
    flat = {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.model_dump(mode="json", exclude={"max_wave_rounds"}).items()
    }
    return {
        "triple": triple.address,
        "triple.fingerprint": triple.fingerprint,
        "seed": config.seed,
        "grader": GRADER_VERSION,
        **flat,
        **question_inputs(used),
    }

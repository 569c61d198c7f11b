"""What each artifact of a run depends on: its inputs, whose fingerprint is its version.

    adapter_inputs(config, Role.DEEP_REASONER)["training.rank"]

Content counts, not places: files and model folders enter by their hash. Buckets, ports, workers and
node types are not inputs, so a run can move and still be found.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorid.artifacts.triples import (
    HUB_ID,
    TRIPLE_FORMAT,
    WEIGHTS_FILE,
    file_sha256,
    model_identity,
)
from lorid.config import ModelConfig, RunConfig
from lorid.errors import ConfigError
from lorid.method.grader import GRADER_VERSION
from lorid.method.roles import Role
from lorid.serving import EvaluationConfig

GENERATOR_VERSION = 2
ROW_FILES = (".json", ".jsonl")
REPORT_FORMAT = 2
"""Of a report's files. 1 was the page alone."""


def data_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the problems; for files their content, for the generator its version and seed."""
    inputs = _flat("data", config.data.model_dump(mode="json"))
    if config.data.augmented is None:
        del inputs["data.augmented"]
    if config.data.source == "demo":
        return {**inputs, "generator": GENERATOR_VERSION, "seed": config.seed}
    if config.data.source == "jsonl":
        for split in ("train", "test"):
            path = Path(str(getattr(config.data, split)))
            inputs[f"data.{split}"] = file_sha256(path)[:16]
    augmented = Path(config.data.augmented or "")
    if augmented.suffix in ROW_FILES and augmented.is_file():
        inputs["data.augmented"] = file_sha256(augmented)[:16]
    return inputs


def knowledge_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the knowledge: the problems, the teacher, its prompt and its sampling.

    Where an API lives, what it allows and what it costs are not inputs.
    """
    return {
        **data_inputs(config),
        **teacher_inputs(config),
        "teacher.prompt": prompt_hash(config),
        **_flat("teacher.gate", config.teacher.gate.model_dump(mode="json")),
        "teacher.max_asks": config.teacher.max_asks,
        "teacher.explain_rejects": config.teacher.explain_rejects,
        "teacher.retry_rejects": config.teacher.retry_rejects,
        "seed": config.seed,
    }


def prompt_hash(config: RunConfig) -> str:
    """SHA-256 of the teacher's template, its first 16 digits."""
    from lorid.distributed.knowledge import read_template

    return hashlib.sha256(read_template(config).encode()).hexdigest()[:16]


def teacher_inputs(config: RunConfig) -> dict[str, Any]:
    """Who the teacher is and how its text is drawn; also what the ledger knows a request by."""
    teacher = config.teacher
    sampling = _flat("teacher.sampling", teacher.sampling.model_dump(mode="json"))
    if teacher.kind == "vllm":
        return {
            **_model_inputs("teacher", teacher.vllm_model),
            **sampling,
            "teacher.guided": teacher.guided,
        }
    assert teacher.api is not None
    drawn = {"model", "response_format", "omit", "extra"}
    return {**_flat("teacher.api", teacher.api.model_dump(mode="json", include=drawn)), **sampling}


def adapter_inputs(config: RunConfig, role: Role) -> dict[str, Any]:
    """Inputs of one adapter: the knowledge, the student, the settings of this role."""
    placement = {
        "num_workers", "num_cpus", "num_gpus", "num_threads", "max_failures",
        "checkpoint_every_steps", "checkpoint_minutes", "num_epochs", "num_epochs_by_role", "mode",
        "micro_batch_tokens", "micro_batch_sequences", "gradient_checkpointing", "start_from",
        "validate_every_steps", "min_gpu_share", "trackers",
    }  # fmt: skip
    settings = config.training.model_dump(mode="json", exclude=placement)
    start = config.training.start_from.get(role)
    if start is not None:
        settings["start_from"] = file_sha256(Path(start) / WEIGHTS_FILE)[:16]
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
        if "training.start_from" in inputs:
            inputs[f"training.start_from.{role}"] = inputs.pop("training.start_from")
    del inputs["role"], inputs["training.num_epochs"]
    return {
        **inputs,
        "triple.format": TRIPLE_FORMAT,
        "grader": GRADER_VERSION,
        **_flat("sampling", config.sampling.model_dump(mode="json")),
        # Waves change what is wasted, never what is answered.
        **_flat("feedback", config.feedback.model_dump(mode="json", exclude={"max_wave_rounds"})),
    }


def evaluation_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the evaluation: the triple, the questions and the base's turn.

    How questions are asked, and how many at once, are not inputs.
    """
    return {**triple_inputs(config), **question_inputs(config.evaluation)}


def question_inputs(settings: EvaluationConfig) -> dict[str, Any]:
    """What an evaluation depends on beside its triple; a file of questions by its content."""
    inputs: dict[str, Any] = {"evaluation.grade_base": settings.grade_base}
    if settings.questions is not None:
        place = settings.questions
        inputs["evaluation.questions"] = (
            file_sha256(Path(place))[:16] if is_row_file(place) else place
        )
    # Only what is not as usual, so that versions stay what they were before there was a choice.
    for name in ("num_questions", "draw_by", "redraw", "compare"):
        if value := getattr(settings, name):
            inputs[f"evaluation.{name}"] = list(value) if name == "compare" else value
    return inputs


def is_row_file(place: str) -> bool:
    """Whether a place of rows is a file, and not a name on the hub."""
    return Path(place).suffix in ROW_FILES


def hub_parts(place: str) -> tuple[str, str | None, str]:
    """ID, config and split of `ID:CONFIG:SPLIT`; `ID` alone is its split `test`.

    Raises:
        ConfigError: it is neither that nor a file of rows.
    """
    name, config, split = [*place.split(":"), "", ""][:3]
    if not HUB_ID.fullmatch(name) or place.count(":") > 2:
        raise ConfigError(
            f"evaluation.questions: {place} is neither a .jsonl or .json file nor "
            "ID:CONFIG:SPLIT of the hub, such as openai/gsm8k:main:test"
        )
    return name, config or None, split or "test"


def report_inputs(config: RunConfig) -> dict[str, Any]:
    """Inputs of the report: the evaluation, and what a report consists of."""
    return {**evaluation_inputs(config), "report.format": REPORT_FORMAT}


def _model_inputs(prefix: str, model: ModelConfig) -> dict[str, Any]:
    return {
        f"{prefix}.model": model_identity(model),
        f"{prefix}.family": model.family,
        f"{prefix}.dtype": model.dtype,
    }


def _flat(prefix: str, section: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{key}": value for key, value in section.items()}

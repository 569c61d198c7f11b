"""RunConfig: one frozen value that says everything about a run.

Example::

    config = load_config("run.yaml", overrides=["training.rank=64", "store=s3://bucket/lorid"])

A file holds a `preset` name, any of the sections below, or both: what the file gives replaces what
the preset says. Every problem is reported at once, each with its field and a fix. Nothing is read
from the environment here; credentials never belong in a config.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from lorid.errors import ConfigError
from lorid.method.roles import Role
from lorid.method.stopping import DEFAULT_TAU, NO_ORACLE, ORACLE, OnExhaustion, Policy, Rule
from lorid.sections import (
    ApiConfig,
    BatchConfig,
    EngineConfig,
    GateConfig,
    ModelConfig,
    PriceConfig,
    SamplingConfig,
    Section,
    with_room,
)

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
MAX_PROBLEMS = 10_000_000
Epochs = Annotated[float, Field(gt=0, le=10_000)]


class DataConfig(Section):
    """Where problems come from.

    `source`: "demo" draws from lorid's own generator; "jsonl" reads `train` and `test`, JSONL files
    of GSM8K, MATH or LoRID rows; "hub" loads `hub_id` by `datasets.load_dataset`.

    `augmented`: rows as MetaMathQA has them, from a hub id or a .json or .jsonl file. They are then
    what is trained on, and the training problems above are their source questions.
    """

    source: Literal["demo", "jsonl", "hub"] = "demo"
    train: str | None = None
    test: str | None = None
    hub_id: str = "openai/gsm8k"
    hub_config: str | None = "main"
    augmented: str | None = None
    num_train: Annotated[int, Field(ge=1, le=MAX_PROBLEMS)] | None = None
    num_test: Annotated[int, Field(ge=1, le=MAX_PROBLEMS)] | None = None

    @field_validator("test")
    @classmethod
    def _files_named(cls, test: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("source") == "jsonl" and not (info.data.get("train") and test):
            raise ValueError("source 'jsonl' needs the paths 'train' and 'test'")
        return test

    @field_validator("augmented")
    @classmethod
    def _has_sources(cls, augmented: str | None, info: ValidationInfo) -> str | None:
        if augmented is not None and info.data.get("source") == "demo":
            raise ValueError("needs its source questions: source 'hub' or 'jsonl'")
        return augmented


class TeacherConfig(Section):
    """The LLM that writes knowledge: where it runs, how it is drawn, and what it may cost.

    `kind`: "vllm" runs `model` on the cluster; "api" asks the server of `api`; "batch" sends the
    same requests through that server's batch API. `max_asks` is how often unusable text is asked
    for, each time differently, before the problem is set aside. `retry_rejects` gives what was set
    aside so many times `max_asks` more. `guided` makes vLLM's text follow the answer's JSON shape.
    `explain_rejects` adds to a new ask what was wrong with the last.
    `max_cost` needs `prices` and is in their currency.
    """

    kind: Literal["vllm", "api", "batch"] = "vllm"
    model: ModelConfig | None = None
    api: ApiConfig | None = None
    batch: BatchConfig = BatchConfig()
    sampling: SamplingConfig = SamplingConfig(
        temperature=0.2, top_p=1.0, top_k=50, max_new_tokens=512
    )
    template: str | None = None
    gate: GateConfig = GateConfig()
    guided: bool = True
    explain_rejects: bool = True
    engine: EngineConfig = EngineConfig()
    num_engines: Annotated[int, Field(ge=1)] = 1
    max_engines: Annotated[int, Field(ge=1)] | None = None
    batch_rows: Annotated[int, Field(ge=1)] = 64
    max_asks: Annotated[int, Field(ge=1, le=20)] = 3
    retry_rejects: Annotated[int, Field(ge=0, le=100)] = 0
    prices: PriceConfig | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None

    @field_validator("api")
    @classmethod
    def _teacher_named(cls, api: ApiConfig | None, info: ValidationInfo) -> ApiConfig | None:
        kind = info.data.get("kind")
        if kind == "vllm" and "model" in info.data and info.data["model"] is None:
            raise ValueError("teacher.kind 'vllm' needs teacher.model (a folder or a hub id)")
        if kind in ("api", "batch") and api is None:
            raise ValueError(f"teacher.kind {kind!r} needs teacher.api, at least its 'model'")
        return api

    @field_validator("engine")
    @classmethod
    def _length_fits(cls, engine: EngineConfig, info: ValidationInfo) -> EngineConfig:
        return with_room(engine, info.data.get("sampling"))

    @property
    def vllm_model(self) -> ModelConfig:
        """The model of a teacher that runs on the cluster."""
        if self.model is None:
            raise ConfigError("teacher.model: needed when teacher.kind is 'vllm'")
        return self.model

    @field_validator("max_engines")
    @classmethod
    def _at_least_all(cls, most: int | None, info: ValidationInfo) -> int | None:
        if most is not None and most < info.data.get("num_engines", 1):
            raise ValueError("must not be below num_engines")
        return most

    @field_validator("max_cost")
    @classmethod
    def _has_prices(cls, max_cost: float | None, info: ValidationInfo) -> float | None:
        if max_cost is not None and info.data.get("prices") is None:
            raise ValueError("needs teacher.prices, by which tokens become money")
        return max_cost


class TrainingConfig(Section):
    """LoRA training of the three roles; the defaults are the published settings.

    `mode`: "separate" trains each role on its own worker, "fused" all three on one worker over one
    copy of the base. `tokens_per_step` packs each step up to a number of tokens instead of taking
    `sequences_per_step`. A micro-batch is what is computed at once: it bounds memory, not results.
    `too_long`: sequences over the cut-off are dropped, or lose the middle of their prompt.
    `start_from`: by role, the folder of a PEFT adapter with this rank and these targets to go on
    from, instead of a fresh one. `validation_fraction` of the problems is held out, and its loss
    taken every `validate_every_steps`; `publish` says which weights become the adapter.
    """

    mode: Literal["separate", "fused"] = "separate"
    rank: Annotated[int, Field(ge=1)] = 512
    alpha: Annotated[float, Field(gt=0)] = 1024
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    use_rslora: bool = False
    use_dora: bool = False
    start_from: dict[Role, str] = Field(default_factory=dict[Role, str])
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = ("q_proj", "v_proj")
    sequences_per_step: Annotated[int, Field(ge=1)] = 16
    tokens_per_step: Annotated[int, Field(ge=16)] | None = None
    max_sequence_tokens: Annotated[int, Field(ge=16)] = 2048
    too_long: Literal["drop", "truncate"] = "drop"
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    validate_every_steps: Annotated[int, Field(ge=1)] = 50
    publish: Literal["last", "best"] = "last"
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 8192
    micro_batch_sequences: Annotated[int, Field(ge=1)] | None = None
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    num_epochs: Epochs = 5
    num_epochs_by_role: dict[Role, Epochs] = Field(default_factory=dict[Role, float])
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    checkpoint_every_steps: Annotated[int, Field(ge=1)] = 200
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = None
    max_failures: Annotated[int, Field(ge=0)] = 2
    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 1
    num_threads: Annotated[int, Field(ge=1)] = 1

    @field_validator("publish")
    @classmethod
    def _best_is_known(cls, publish: str, info: ValidationInfo) -> str:
        if publish == "best" and not info.data.get("validation_fraction"):
            raise ValueError("which is best is known only with a validation_fraction above 0")
        return publish

    @field_validator("use_dora")
    @classmethod
    def _dora_alone(cls, use_dora: bool, info: ValidationInfo) -> bool:
        if use_dora and info.data.get("mode") == "fused":
            raise ValueError("DoRA cannot be trained fused; set training.mode to separate")
        return use_dora

    def epochs_of(self, role: Role) -> float:
        """Number of epochs that `role` trains."""
        return self.num_epochs_by_role.get(role, self.num_epochs)


class FeedbackConfig(Section):
    """Mutual feedback: the rule, its bounds, and what to answer without agreement.

    `tau` is the posterior that `bayes` stops at. `max_wave_rounds` is how many rounds of a question
    may be at work at once; it costs texts and saves time, and never changes an answer.
    """

    rule: Rule = "paper"
    max_rounds: Annotated[int, Field(ge=1, le=100)] = 20
    on_exhaustion: OnExhaustion = "plurality"
    tau: Annotated[float, Field(gt=0.5, lt=1)] = DEFAULT_TAU
    max_wave_rounds: Annotated[int, Field(ge=1, le=100)] = 1

    @field_validator("rule")
    @classmethod
    def _live(cls, rule: Rule) -> Rule:
        if rule == ORACLE:
            raise ValueError(NO_ORACLE)
        return rule

    def policy(self, *, rule: str | None = None, max_rounds: int | None = None) -> Policy:
        """What decides a question, where a request may choose rule and bound."""
        return Policy(
            rule=rule or self.rule,
            max_rounds=max_rounds or self.max_rounds,
            on_exhaustion=self.on_exhaustion,
            tau=self.tau,
        )


class ServingConfig(Section):
    """The endpoint.

    `alias_poll_s`: how often a replica that follows an alias looks where it points.
    `max_adapter_rank`: the highest rank that the engine holds; None takes that of the first triple,
    and a triple with a higher one then needs a restart.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    num_replicas: Annotated[int, Field(ge=1)] = 1
    max_concurrent_questions: Annotated[int, Field(ge=1)] = 64
    request_timeout_s: Annotated[float, Field(gt=0)] = 600
    alias_poll_s: Annotated[float, Field(gt=0)] = 10
    max_adapter_rank: Annotated[int, Field(ge=1, le=512)] | None = None


class EvaluationConfig(Section):
    """Grading of the test split through the endpoint."""

    items_per_request: Annotated[int, Field(ge=1, le=1000)] = 32
    requests_in_flight: Annotated[int, Field(ge=1)] = 2
    grade_base: bool = True


class EndpointConfig(Section):
    """The part of a run that an endpoint needs; a triple's manifest gives it too."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    store: Annotated[str, Field(min_length=1)] = "lorid-store"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    student: ModelConfig
    sampling: SamplingConfig = SamplingConfig()
    engine: EngineConfig = EngineConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    serving: ServingConfig = ServingConfig()

    @field_validator("engine")
    @classmethod
    def _length_fits(cls, engine: EngineConfig, info: ValidationInfo) -> EngineConfig:
        return with_room(engine, info.data.get("sampling"))

    def endpoint(self) -> "EndpointConfig":
        """This config without what only a run needs."""
        return EndpointConfig.model_validate(
            {name: getattr(self, name) for name in EndpointConfig.model_fields}
        )


class RunConfig(EndpointConfig):
    """A whole run."""

    data: DataConfig = DataConfig()
    teacher: TeacherConfig
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()


def load_config(
    source: str | Path | None, *, preset: str | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """A config from a YAML or JSON file (or only a preset) with `a.b=c` overrides.

    Raises:
        ConfigError: everything that is wrong, one line a problem: field, cause and fix.
    """
    text = "" if source is None else _read_text(source)
    return parse_config(text, preset=preset, overrides=overrides, source=str(source or "overrides"))


def parse_config(
    text: str, *, preset: str | None = None, overrides: Sequence[str] = (), source: str = "config"
) -> RunConfig:
    """`load_config` for text that is already at hand."""
    from lorid.presets import preset_named

    loaded: object = _parsed_yaml(text, source=source)
    loaded = {} if loaded is None else loaded
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{source}: expected a mapping of sections, found {type(loaded).__name__}"
        )
    data = cast("dict[str, Any]", loaded)
    name = data.pop("preset", preset)
    merged: dict[str, Any] = {}
    if name is not None:
        merged = preset_named(str(name)).model_dump(mode="json")
    _merge(merged, data)
    for override in overrides:
        _apply_override(merged, override)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from error


def change_endpoint(
    config: EndpointConfig, overrides: Sequence[str], *, source: str
) -> EndpointConfig:
    """An endpoint's config with `a.b=c` overrides.

    Raises:
        ConfigError: everything that is wrong, one line a problem.
    """
    merged = config.endpoint().model_dump(mode="json")
    for override in overrides:
        _apply_override(merged, override)
    try:
        return EndpointConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, source)) from error


def dump_config(config: RunConfig) -> str:
    """The complete config as YAML; `load_config` reads it back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_text(source: str | Path) -> str:
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read config {source}: {cause}; name a YAML or JSON file"
        ) from error


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.YAMLError(f"given twice: {', '.join(repeated)}")
        return super().construct_mapping(node, deep=deep)


def _parsed_yaml(text: str, *, source: str) -> object:
    try:
        # A subclass of SafeLoader: plain values only.
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML or JSON: {_first_line(error)}") from error


def _merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], cast("Mapping[str, Any]", value))
        else:
            target[key] = value


def _apply_override(target: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r}: expected section.field=value")
    changes: Any = _parsed_yaml(value, source=f"--set {override!r}") if value else ""
    for key in reversed(keys):
        changes = {key: changes}
    _merge(target, changes)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _explain(error: ValidationError, source: str) -> str:
    lines = [f"{source}: {error.error_count()} problem(s)"]
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or "(whole config)"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "unknown field; remove it or check its spelling (lorid config show)"
        elif problem["type"] == "missing":
            message = "required; add it, or start from a preset (preset: demo)"
        elif problem["type"] == "model_type":
            message = "expected a mapping of fields, such as {rank: 64}"
        elif problem["type"] == "string_pattern_mismatch":
            message = "expected 1 to 63 of a-z, 0-9, dot, dash, underscore; no dash or dot first"
        lines.append(f"  {field}: {message}")
    return "\n".join(lines)

"""RunConfig: one frozen value that says everything about a run.

Example::

    config = load_config("run.yaml", overrides=["training.rank=64", "store=s3://bucket/lorid"])

A file holds a `preset` name, any of the sections (`lorid.sections`), or both: what the file gives
replaces what the preset says. Every problem is reported at once, each with its field and a fix.
Nothing is read from the environment here; credentials never belong in a config.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from lorid.errors import ConfigError, one_line
from lorid.sections import (
    DataConfig,
    EngineConfig,
    FeedbackConfig,
    ModelConfig,
    SamplingConfig,
    Section,
    TeacherConfig,
    TrainingConfig,
    with_room,
)
from lorid.serving import EvaluationConfig, ServingConfig, check_mode

SectionType = TypeVar("SectionType", bound=Section)
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"


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

    @field_validator("evaluation")
    @classmethod
    def _is_served(cls, evaluation: EvaluationConfig, info: ValidationInfo) -> EvaluationConfig:
        serving = info.data.get("serving")
        if serving is not None:
            try:
                check_mode(evaluation, serving)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return evaluation


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
    return change_section(config.endpoint(), overrides, source=source)


def change_section(section: SectionType, overrides: Sequence[str], *, source: str) -> SectionType:
    """Any section, or an endpoint's config, with `a.b=c` overrides.

    Raises:
        ConfigError: everything that is wrong, one line a problem.
    """
    merged = section.model_dump(mode="json")
    for override in overrides:
        _apply_override(merged, override)
    try:
        return type(section).model_validate(merged)
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
        raise ConfigError(f"{source}: not valid YAML or JSON: {one_line(error)}") from error


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

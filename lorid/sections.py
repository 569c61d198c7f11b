"""Sections of a config that stand alone: their base, models and engines, and a teacher's parts.

`lorid.config` puts them together and says what a whole run is; import them from there.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lorid.method.gate import GateLimits
from lorid.method.templates import FAMILIES

Count = Annotated[int, Field(ge=1)]
Price = Annotated[float, Field(ge=0)]
Option = str | int | float | bool
# What the request says by itself; to give these twice would only contradict.
_OWN_OPTIONS = {"model", "messages", "stream", "n", "response_format", "temperature", "seed"}


class Section(BaseModel):
    """Base of every section: frozen, and a misspelt field is an error.

    Checks of two fields against each other are made with the later of the two, so that a problem
    elsewhere does not hide them; hence defaults are validated too.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


class ModelConfig(Section):
    """A language model: a local folder or a hub id, and its prompt family."""

    path: str
    family: str = "tokenizer"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"

    @field_validator("family")
    @classmethod
    def _known_family(cls, family: str) -> str:
        if family not in FAMILIES:
            raise ValueError(f"unknown family {family!r}; choose one of {', '.join(FAMILIES)}")
        return family


class SamplingConfig(Section):
    """How text is drawn. The defaults are the published ones."""

    temperature: Annotated[float, Field(ge=0, le=5)] = 1.5
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: Annotated[int, Field(ge=1)] = 50
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024


class EngineConfig(Section):
    """One vLLM engine: its limits, and what it asks of the cluster."""

    max_model_len: Annotated[int, Field(ge=16)] = 2048
    max_num_seqs: Annotated[int, Field(ge=1)] = 256
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    cpu_kv_cache_gib: Annotated[int, Field(ge=1)] = 1
    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 1
    num_threads: Annotated[int, Field(ge=1)] = 1
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1


class ApiConfig(Section):
    """An OpenAI-compatible server, what it allows, and how long it is asked.

    `base_url` None is OpenAI's own. `api_key_env` names the environment variable that holds the
    key (never the key itself); None asks without one. `api_version` makes it an Azure deployment.
    The limits are those of the whole cluster, whatever the number of `num_workers`. `max_tries` is
    how often one request is sent when the server fails; `give_up_after_s` is how long nothing at
    all may succeed before the stage stops. `hedge_after_s` sends a request that takes longer once
    more, where the limits have room; both may be charged. `extra` holds further options of the
    request's body, such as `reasoning_effort`; `omit` names those that the model does not take.
    """

    model: Annotated[str, Field(min_length=1)]
    base_url: str | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = (
        "OPENAI_API_KEY"
    )
    api_version: str | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    requests_per_second: Annotated[float, Field(gt=0)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 64
    num_workers: Annotated[int, Field(ge=1, le=256)] = 1
    timeout_s: Annotated[float, Field(gt=0)] = 120
    max_tries: Annotated[int, Field(ge=1, le=100)] = 8
    give_up_after_s: Annotated[float, Field(gt=0)] = 300
    hedge_after_s: Annotated[float, Field(gt=0)] | None = None
    response_format: Literal["json_object", "json_schema", "text"] = "json_object"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    omit: tuple[Literal["temperature", "top_p", "seed", "response_format"], ...] = ()
    extra: dict[str, Option] = Field(default_factory=dict[str, Option])

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, base_url: str | None) -> str | None:
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ValueError("expected http://... or https://..., often ending in /v1")
        if base_url is not None and "@" in base_url.split("//", 1)[1].split("/", 1)[0]:
            raise ValueError("holds a password; keys come from the environment (api_key_env)")
        return base_url

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Option]) -> dict[str, Option]:
        taken = sorted(_OWN_OPTIONS & extra.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by other fields of the teacher")
        return extra


class BatchConfig(Section):
    """The provider's batch API: half the price, an answer within a day.

    A batch is sent when `max_requests` are waiting, or nothing has joined for `gather_s`.
    """

    max_requests: Annotated[int, Field(ge=1, le=50_000)] = 50_000
    gather_s: Annotated[float, Field(gt=0)] = 5
    poll_s: Annotated[float, Field(gt=0)] = 60
    completion_window: str = "24h"


class PriceConfig(Section):
    """What a million tokens cost; the batch API takes `batch_discount` times that."""

    input_per_million: Price
    output_per_million: Price
    cached_input_per_million: Price | None = None
    batch_discount: Annotated[float, Field(gt=0, le=1)] = 0.5
    currency: str = "USD"


class GateConfig(Section):
    """The quality gate for knowledge; what each threshold refuses is told in docs/teach.md.

    `copied_words`: as many words in a row from the question are a copied phrase, 0 looks for none.
    """

    min_rules: Annotated[int, Field(ge=1, le=50)] = 2
    max_rules: Annotated[int, Field(ge=1, le=50)] = 5
    min_rule_words: Annotated[int, Field(ge=1, le=100)] = 3
    max_rule_chars: Annotated[int, Field(ge=10, le=4000)] = 400
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.9
    copied_words: Annotated[int, Field(ge=0, le=100)] = 6
    check_steps: bool = False

    @field_validator("max_rules")
    @classmethod
    def _not_below(cls, max_rules: int, info: ValidationInfo) -> int:
        if max_rules < info.data.get("min_rules", max_rules):
            raise ValueError("must not be below min_rules")
        return max_rules

    def limits(self) -> GateLimits:
        """The thresholds for `lorid.method.gate`."""
        return GateLimits(**self.model_dump())


def with_room(engine: EngineConfig, sampling: SamplingConfig | None) -> EngineConfig:
    """The engine, when a prompt fits before the longest answer; raises ValueError otherwise."""
    if sampling is not None and sampling.max_new_tokens >= engine.max_model_len:
        raise ValueError(
            f"max_model_len {engine.max_model_len} leaves no room for a prompt before "
            f"sampling.max_new_tokens {sampling.max_new_tokens}; raise the one or lower the other"
        )
    return engine

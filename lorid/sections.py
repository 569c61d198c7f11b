"""The sections of a config, each with its defaults and the checks within it.

    training:                 # TrainingConfig
      rank: 64

`lorid.config` puts them together to an endpoint's and a run's config, and reads the files.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lorid.errors import ConfigError
from lorid.method.gate import GateLimits
from lorid.method.roles import Role
from lorid.method.stopping import DEFAULT_TAU, NO_ORACLE, ORACLE, OnExhaustion, Policy, Rule
from lorid.method.templates import FAMILIES

MAX_PROBLEMS = 10_000_000
MAX_TEMPERATURE = 2.0
"""What vLLM and the APIs take."""
MAX_RANK = 512
"""What vLLM serves: an adapter of a higher one would be of no use in a run."""
Epochs = Annotated[float, Field(gt=0, le=10_000)]
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

    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] = 1.5
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    top_k: Annotated[int, Field(ge=1)] = 50
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024


class EngineConfig(Section):
    """One vLLM engine; `num_gpus` is for each of its `tensor_parallel_size` parts, on one node."""

    max_model_len: Annotated[int, Field(ge=16)] = 2048
    max_num_seqs: Annotated[int, Field(ge=1)] = 256
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    cpu_kv_cache_gib: Annotated[int, Field(ge=1)] = 1
    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 1
    num_threads: Annotated[int, Field(ge=1)] = 1
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1

    @field_validator("tensor_parallel_size")
    @classmethod
    def _whole_gpus(cls, parts: int, info: ValidationInfo) -> int:
        gpus = info.data.get("num_gpus", 0)
        if gpus > 1 or (parts > 1 and 0 < gpus < 1):
            raise ValueError(f"each of {parts} parts is on one GPU (num_gpus 1), not on {gpus:g}")
        return parts


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

    min_rules: Annotated[int, Field(ge=1, le=50)] = GateLimits.min_rules
    max_rules: Annotated[int, Field(ge=1, le=50)] = GateLimits.max_rules
    min_rule_words: Annotated[int, Field(ge=1, le=100)] = GateLimits.min_rule_words
    max_rule_chars: Annotated[int, Field(ge=10, le=4000)] = GateLimits.max_rule_chars
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = GateLimits.near_duplicate
    copied_words: Annotated[int, Field(ge=0, le=100)] = GateLimits.copied_words
    check_steps: bool = GateLimits.check_steps

    @field_validator("max_rules")
    @classmethod
    def _not_below(cls, max_rules: int, info: ValidationInfo) -> int:
        if max_rules < info.data.get("min_rules", max_rules):
            raise ValueError("must not be below min_rules")
        return max_rules

    def limits(self) -> GateLimits:
        """The thresholds for `lorid.method.gate`."""
        return GateLimits(**self.model_dump())


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


TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class TrainingConfig(Section):
    """LoRA training of the three roles; the defaults are the published settings.

    `mode`: "separate" trains each role on its own worker, "fused" all three on one worker over one
    copy of the base. `tokens_per_step` packs each step up to a number of tokens instead of taking
    `sequences_per_step`. A micro-batch is what is computed at once: it bounds memory, not results.
    `too_long`: sequences over the cut-off are dropped, or lose the middle of their prompt.
    `start_from`: by role, the folder of a PEFT adapter with this rank and these targets to go on
    from, instead of a fresh one. `validation_fraction` of the problems is held out, and its loss
    taken every `validate_every_steps`; `publish` says which weights become the adapter.
    `num_workers` share the sequences of each step of a role, or of all in fused mode; `num_cpus`,
    `num_gpus` and `num_threads` are those of one worker. With fewer GPUs than trainings they may
    share one, each having at least `min_gpu_share` of it; None lets them take turns instead.
    `trackers` show the steps while they are taken.
    """

    mode: Literal["separate", "fused"] = "separate"
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] = 512
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
    num_workers: Annotated[int, Field(ge=1, le=1024)] = 1
    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 1
    min_gpu_share: Annotated[float, Field(gt=0, le=1)] | None = None
    num_threads: Annotated[int, Field(ge=1)] = 1
    trackers: Annotated[tuple[TrackerName, ...], Field(max_length=3)] = ("tensorboard",)

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


def with_room(engine: EngineConfig, sampling: SamplingConfig | None) -> EngineConfig:
    """The engine, when a prompt fits before the longest answer; raises ValueError otherwise."""
    if sampling is not None and sampling.max_new_tokens >= engine.max_model_len:
        raise ValueError(
            f"max_model_len {engine.max_model_len} leaves no room for a prompt before "
            f"sampling.max_new_tokens {sampling.max_new_tokens}; raise the one or lower the other"
        )
    return engine

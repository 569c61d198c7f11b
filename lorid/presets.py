"""Presets: functions that return a complete RunConfig.

Derive your own in two lines with `model_copy`, or in a file with `preset: NAME` and changes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from lorid.config import (
    DataConfig,
    EngineConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    TeacherConfig,
    TrainingConfig,
)
from lorid.errors import ConfigError
from lorid.method.roles import Role

DEMO_MODELS = Path(__file__).parent / "demo" / "models"


def demo() -> RunConfig:
    """The whole pipeline on a laptop: the shipped models, two cores, minutes.

    Prompts, targets, sampling temperature and protocol are the paper's; rank, adapted layers,
    learning rate, number of tokens and data size are the demo's own.
    """
    engine = EngineConfig(
        max_model_len=512, max_num_seqs=64, max_num_batched_tokens=1024, num_gpus=0
    )
    return RunConfig(
        name="demo",
        data=DataConfig(source="demo", num_train=320, num_test=300),
        student=ModelConfig(path=str(DEMO_MODELS / "base"), dtype="float32"),
        teacher=TeacherConfig(
            model=ModelConfig(path=str(DEMO_MODELS / "teacher"), dtype="float32"),
            sampling=SamplingConfig(temperature=0.2, top_p=1.0, top_k=50, max_new_tokens=160),
            engine=engine,
            # The shipped teacher knows one prompt, and writes JSON by itself.
            explain_rejects=False,
            guided=False,
        ),
        training=TrainingConfig(
            rank=32,
            alpha=64,
            dropout=0.0,
            target_modules=(
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ),
            learning_rate=1e-3,
            num_epochs=1,
            num_epochs_by_role={Role.KNOWLEDGE_GENERATOR: 3, Role.DEEP_REASONER: 4},
            max_sequence_tokens=512,
            micro_batch_tokens=1024,
            num_gpus=0,
        ),
        sampling=SamplingConfig(max_new_tokens=160),
        engine=engine,
        evaluation=EvaluationConfig(items_per_request=20, requests_in_flight=4),
    )


def gsm8k_mistral() -> RunConfig:
    """The published GSM8K run on Mistral-7B-v0.1, with a local teacher on the cluster's GPUs."""
    return _published_run("gsm8k-mistral", data=_GSM8K, student=_MISTRAL)


def gsm8k_llama2() -> RunConfig:
    """The published GSM8K run on Llama-2-7B."""
    return _published_run("gsm8k-llama2", data=_GSM8K, student=_LLAMA2)


def math_mistral() -> RunConfig:
    """The published MATH run on Mistral-7B-v0.1."""
    return _published_run("math-mistral", data=_MATH, student=_MISTRAL)


def math_llama2() -> RunConfig:
    """The published MATH run on Llama-2-7B."""
    return _published_run("math-llama2", data=_MATH, student=_LLAMA2)


_GSM8K = DataConfig(source="hub", hub_id="openai/gsm8k", hub_config="main")
_MATH = DataConfig(source="hub", hub_id="DigitalLearningGmbH/MATH-lighteval", hub_config=None)
_MISTRAL = ModelConfig(path="mistralai/Mistral-7B-v0.1", family="mistral")
_LLAMA2 = ModelConfig(path="meta-llama/Llama-2-7b-hf", family="llama2")
_TEACHER = TeacherConfig(model=ModelConfig(path="Qwen/Qwen2.5-Math-7B-Instruct", family="qwen"))


def _published_run(name: str, *, data: DataConfig, student: ModelConfig) -> RunConfig:
    """The paper's settings are the defaults of each section."""
    return RunConfig(name=name, data=data, student=student, teacher=_TEACHER)


PRESETS: Mapping[str, Callable[[], RunConfig]] = {
    "demo": demo,
    "gsm8k_mistral": gsm8k_mistral,
    "gsm8k_llama2": gsm8k_llama2,
    "math_mistral": math_mistral,
    "math_llama2": math_llama2,
}
# The authors' adapters on the hub, without the role at the end of each name.
PUBLISHED: Mapping[str, str] = {
    "gsm8k_mistral": "LoRID-Math/GSM8K-Mistral-7B",
    "gsm8k_llama2": "LoRID-Math/GSM8K-LLaMA-2-7B",
    "math_mistral": "LoRID-Math/MATH-Mistral-7B",
    "math_llama2": "LoRID-Math/MATH-LLaMA-2-7B",
}


def published_adapters(preset: str) -> dict[Role, str]:
    """Hub ids of the adapters that the authors published for a preset; raises ConfigError."""
    if preset not in PUBLISHED:
        raise ConfigError(
            f"no adapters are published for preset {preset!r}; there are some for "
            f"{', '.join(PUBLISHED)}"
        )
    return {role: f"{PUBLISHED[preset]}-{role.short}" for role in Role}


def preset_named(name: str) -> RunConfig:
    """The preset of that name; raises ConfigError naming the known ones."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()

"""What the training tests share: tiny bases of three architectures, configs, examples, sessions."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lorid.config import EngineConfig, ModelConfig, RunConfig, TeacherConfig, TrainingConfig
from lorid.method.roles import Role
from lorid.training.batches import Example
from lorid.training.loop import TrainingSession
from lorid.training.ranks import Ranks

VOCAB_SIZE = 97
WINDOW = 12
SHAPE = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
KINDS = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": WINDOW}),
}


def tiny_base(kind: str = "qwen2", *, seed: int = 0) -> PreTrainedModel:
    """An untrained model of two layers; Mistral's attention window is 12 tokens."""
    config_class, model_class, more = KINDS[kind]
    torch.manual_seed(seed)
    model = model_class(config_class(**SHAPE, **more))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)  # far from uniform: differences show
    return model


def tiny_config(path: str | Path = "none", **training) -> RunConfig:
    model = ModelConfig(path=str(path), dtype="float32")
    settings = {
        "rank": 4, "alpha": 8, "dropout": 0.0, "learning_rate": 1e-2, "warmup_ratio": 0.0,
        "num_epochs": 1, "sequences_per_step": 6, "num_gpus": 0, "gradient_checkpointing": "off",
    }  # fmt: skip
    return RunConfig(
        name="t",
        student=model,
        teacher=TeacherConfig(model=model, engine=EngineConfig(num_gpus=0)),
        training=TrainingConfig(**{**settings, **training}),
    )


def random_examples(lengths: Sequence[int], *, seed: int = 0) -> list[Example]:
    """Sequences of random ids; the last two thirds of each are supervised."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for number, length in enumerate(lengths):
        ids = torch.randint(0, VOCAB_SIZE, (length,), generator=generator).tolist()
        labels = [-100] * (length // 3) + ids[length // 3 :]
        examples.append(Example(input_ids=ids, labels=labels, problem_id=f"p{number}"))
    return examples


def tiny_session(
    config: RunConfig,
    examples: dict[Role, list[Example]] | list[Example],
    *,
    kind: str = "qwen2",
    role: Role = Role.INTUITIVE_REASONER,
    ranks: Ranks | None = None,
) -> TrainingSession:
    by_role = examples if isinstance(examples, dict) else {role: examples}
    return TrainingSession(
        config,
        examples=by_role,
        device=torch.device("cpu"),
        base=tiny_base(kind),
        ranks=ranks,
    )


def awaken(session: TrainingSession, *, seed: int = 5) -> None:
    """Give the adapters' second halves random weights: fresh ones are zero and pass no gradient."""
    for track in session.tracks.values():
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in track.weights:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)


def gradients(session: TrainingSession) -> list[torch.Tensor]:
    """Every gradient of the next step, role by role; the step is not taken."""
    active = [track for track in session.tracks.values() if track.is_active]
    session._backward(active)
    found = [weight.grad.clone() for track in active for weight in track.weights]
    for track in active:
        track.optimizer.zero_grad(set_to_none=True)
    return found

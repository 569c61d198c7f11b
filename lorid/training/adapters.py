"""A base model wrapped with a fresh LoRA adapter, and the adapter's files.

Adapters are PEFT's own format, safetensors only, so that `PeftModel.from_pretrained` and vLLM load
them without lorid.
"""

from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorid.config import ModelConfig, TrainingConfig
from lorid.errors import AdapterMismatch, ConfigError
from lorid.method.roles import Role


def load_tokenizer(student: ModelConfig) -> PreTrainedTokenizerBase:
    """The base's tokenizer.

    Raises:
        ConfigError: it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(
            student.path, revision=student.revision, trust_remote_code=False
        )
    except Exception as error:  # damaged files raise whatever their parsers raise
        raise ConfigError(_cannot_load("tokenizer", student, error)) from error


def load_base(student: ModelConfig) -> PreTrainedModel:
    """The base's weights, from safetensors, in the configured precision.

    Raises:
        ConfigError: they cannot be loaded.
    """
    try:
        return AutoModelForCausalLM.from_pretrained(
            student.path,
            revision=student.revision,
            dtype=getattr(torch, student.dtype),
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # damaged files raise whatever their parsers raise
        raise ConfigError(_cannot_load("model", student, error)) from error


def new_adapter(base: PreTrainedModel, training: TrainingConfig, *, seed: int) -> PeftModel:
    """The base with an untrained adapter; only the adapter's weights require gradients.

    Raises:
        AdapterMismatch: a target module is not in the model, or the rank exceeds its width.
    """
    for target in training.target_modules:
        widths = [
            min(module.in_features, module.out_features)
            for name, module in base.named_modules()
            if name.split(".")[-1] == target and isinstance(module, torch.nn.Linear)
        ]
        if not widths:
            raise AdapterMismatch(
                f"training.target_modules: the base has no linear layer {target!r}; "
                f"it has {', '.join(_linear_names(base))}"
            )
        if training.rank > min(widths):
            raise AdapterMismatch(
                f"training.rank: {training.rank} exceeds the width {min(widths)} of {target!r}; "
                f"lower it to {min(widths)} or less"
            )
    alpha = training.alpha
    torch.manual_seed(seed)
    return get_peft_model(
        base,
        LoraConfig(
            r=training.rank,
            # PEFT scales by alpha / rank and reads fractions too, whatever its annotation says.
            lora_alpha=cast("int", int(alpha) if alpha.is_integer() else alpha),
            lora_dropout=training.dropout,
            target_modules=list(training.target_modules),
            bias="none",
            task_type="CAUSAL_LM",
        ),
    )


def save_adapter(model: PeftModel, folder: Path, *, role: Role, student: ModelConfig) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` (with the base's name)."""
    config = cast("LoraConfig", model.peft_config["default"])
    config.base_model_name_or_path = student.path
    config.revision = student.revision
    config.inference_mode = True
    model.save_pretrained(str(folder), safe_serialization=True)
    config.inference_mode = False
    (folder / "README.md").write_text(
        f"---\nlibrary_name: peft\ntags: [lora, lorid, {role}]\n---\n"
        f"# {role}\n\nLoRA adapter (rank {config.r}) of `{Path(student.path).name}` for the LoRID "
        f"role *{role}*, prompt family `{student.family}`.\n"
    )


def _linear_names(base: torch.nn.Module) -> list[str]:
    return sorted(
        {
            name.split(".")[-1]
            for name, module in base.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
    )


def _cannot_load(what: str, student: ModelConfig, error: Exception) -> str:
    cause = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return f"cannot load the {what} of {student.path}: {cause}; check student.path and revision"

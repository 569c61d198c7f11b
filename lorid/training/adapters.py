"""A base model with the roles' LoRA adapters, and the adapters' files.

Adapters are PEFT's own format, safetensors only, so that `PeftModel.from_pretrained` and vLLM load
them without lorid. In the model each is named after its role.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import try_to_load_from_cache
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lorid.artifacts.adapters import WEIGHTS_FILE, check_adapter
from lorid.artifacts.triples import HUB_ID
from lorid.config import ModelConfig, TrainingConfig
from lorid.errors import AdapterMismatch, ConfigError, one_line
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
        raise ConfigError(cannot_load("tokenizer", student, error)) from error


def load_base(student: ModelConfig, *, device: torch.device | None = None) -> PreTrainedModel:
    """The base's weights, from safetensors, in the configured precision.

    For training on a CPU in float32 whatever is configured: finer, and faster there.

    Raises:
        ConfigError: they cannot be loaded.
    """
    is_for_cpu = device is not None and device.type == "cpu"
    try:
        return AutoModelForCausalLM.from_pretrained(
            student.path,
            revision=student.revision,
            dtype=torch.float32 if is_for_cpu else getattr(torch, student.dtype),
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # damaged files raise whatever their parsers raise
        raise ConfigError(cannot_load("model", student, error)) from error


def check_targets(base: torch.nn.Module, training: TrainingConfig) -> None:
    """Compare target modules and rank with the base's shape.

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


def new_adapters(
    base: PreTrainedModel, training: TrainingConfig, *, roles: Sequence[Role], seed: int
) -> PeftModel:
    """The base with an untrained adapter for each role; only their weights require gradients.

    An adapter is the same whichever others are beside it.

    Raises:
        AdapterMismatch: a target module is not in the model, the rank exceeds its width, or an
            adapter to start from does not fit.
    """
    check_targets(base, training)
    model: PeftModel | None = None
    for role in roles:
        torch.manual_seed(seed)
        if model is None:
            made = get_peft_model(base, lora_config(training), adapter_name=role)
            model = cast("PeftModel", made)
        else:
            model.add_adapter(role, lora_config(training))
    assert model is not None
    for role, folder in training.start_from.items():
        if role in roles:
            _go_on_from(model, Path(folder), role=role)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)
    return model


def lora_config(training: TrainingConfig) -> LoraConfig:
    """The settings as PEFT's."""
    alpha = training.alpha
    return LoraConfig(
        r=training.rank,
        # PEFT scales by alpha / rank and reads fractions too, whatever its annotation says.
        lora_alpha=cast("int", int(alpha) if alpha.is_integer() else alpha),
        lora_dropout=training.dropout,
        target_modules=list(training.target_modules),
        use_rslora=training.use_rslora,
        use_dora=training.use_dora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def check_start(folder: Path, training: TrainingConfig, *, role: Role) -> None:
    """Compare the settings of an adapter to go on from with those of the run.

    Raises:
        AdapterMismatch: it cannot be read, is damaged, or its settings are others.
    """
    info = check_adapter(folder)
    pairs = {
        "rank": (training.rank, info.rank),
        "alpha": (training.alpha, info.config.lora_alpha),
        "use_rslora": (training.use_rslora, info.config.use_rslora),
        "target_modules": (sorted(training.target_modules), list(info.target_modules)),
    }
    other = [
        f"training.{name}={theirs}" for name, (mine, theirs) in pairs.items() if mine != theirs
    ]
    if other:
        raise AdapterMismatch(
            f"training.start_from.{role}: the adapter in {folder} was made with "
            f"{', '.join(other)}; set them so"
        )


def _go_on_from(model: PeftModel, folder: Path, *, role: Role) -> None:
    """Copy the weights of a saved adapter into the role's."""
    saved = load_file(folder / WEIGHTS_FILE)
    fresh = get_peft_model_state_dict(model, adapter_name=role, save_embedding_layers=False)
    wrong = sorted(set(saved) ^ set(fresh)) or [
        f"{name} of {tuple(saved[name].shape)} where the base needs {tuple(weight.shape)}"
        for name, weight in fresh.items()
        if saved[name].shape != weight.shape
    ]
    if wrong:
        raise AdapterMismatch(
            f"training.start_from.{role}: the adapter in {folder} was made for another base than "
            f"this: {wrong[0]}; name the base that it was trained on as student.path"
        )
    set_peft_model_state_dict(model, saved, adapter_name=role)


def weights_of(model: PeftModel, role: Role) -> list[torch.nn.Parameter]:
    """The role's own weights, in the model's order."""
    mark = f".{role}"
    return [
        weight
        for name, weight in model.named_parameters()
        if weight.requires_grad and (f"{mark}." in name or name.endswith(mark))
    ]


def save_adapter(model: PeftModel, folder: Path, *, role: Role, student: ModelConfig) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, which names base and revision.

    Of a base from a hub the revision is the commit that was loaded, whatever the config names.
    """
    config = cast("LoraConfig", model.peft_config[role])
    config.base_model_name_or_path = student.path
    config.revision = _loaded_revision(student)
    weights = get_peft_model_state_dict(model, adapter_name=role, save_embedding_layers=False)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in weights.items()},
        folder / WEIGHTS_FILE,
        metadata={"format": "pt"},
    )
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = False


def _loaded_revision(student: ModelConfig) -> str | None:
    """The commit in the hub's cache that the revision stands for, or the revision itself."""
    if Path(student.path).is_dir() or not HUB_ID.fullmatch(student.path):
        return student.revision
    cached = try_to_load_from_cache(student.path, "config.json", revision=student.revision)
    # .../snapshots/COMMIT/config.json
    return Path(cached).parent.name if isinstance(cached, str) else student.revision


def _linear_names(base: torch.nn.Module) -> list[str]:
    return sorted(
        {
            name.split(".")[-1]
            for name, module in base.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
    )


def cannot_load(what: str, student: ModelConfig, error: Exception) -> str:
    """One line about a model that cannot be loaded."""
    cause = f"{type(error).__name__}: {one_line(error, max_chars=160)}"
    return f"cannot load the {what} of {student.path}: {cause}; check student.path and revision"

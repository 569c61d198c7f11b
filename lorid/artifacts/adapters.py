"""Checks of an adapter folder, from its files alone.

    info = check_adapter(folder)                   # consistent in itself
    info = check_adapter(folder, base=config)      # and made for this base

vLLM dies with the first request for an adapter that does not fit, so what can be known from the
files is known before an engine sees them: format, rank, targets, shapes, and that every weight is a
finite number. Pickled weights are never opened.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from lorid.errors import AdapterMismatch
from lorid.sections import MAX_RANK

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1024**2
# What vLLM accepts as max_lora_rank; its compute pads to this, so the smallest that fits is taken.
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, MAX_RANK)
_LAYER = re.compile(
    r"base_model\.model\.model\.layers\.(\d{1,4})\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight"
)
# Bits that are all set in what is no finite number, by the type's name in safetensors.
_NOT_FINITE: dict[str, tuple[str, int]] = {
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F32": ("<u4", 0x7F800000),
}
_CHUNK_BYTES = 16 * 1024**2

Target = Annotated[str, Field(pattern=r"^\w{1,64}$")]
Off = Literal[False] | None
Nothing = Annotated[tuple[Any, ...] | dict[str, Any], Field(max_length=0)] | None


class AdapterConfig(BaseModel):
    """What of PEFT's adapter_config.json decides how an adapter works, within what is served.

    Fields that PEFT and vLLM would apply differently, or that change the base, must be off.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] | None = "CAUSAL_LM"
    base_model_name_or_path: Annotated[str, Field(max_length=1000)] | None = None
    revision: Annotated[str, Field(max_length=200)] | None = None
    r: Annotated[int, Field(ge=1, le=ENGINE_RANKS[-1])]
    lora_alpha: Annotated[float, Field(gt=0, le=1e6)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[Target], Field(min_length=1, max_length=64)]
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    # How the weights began; other ways (pissa, olora, corda, loftq) change the base's weights.
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal"] = True
    use_dora: Off = False
    use_qalora: Off = False
    lora_bias: Off = False
    fan_in_fan_out: Off = False
    rank_pattern: Nothing = None
    alpha_pattern: Nothing = None
    modules_to_save: Nothing = None
    layer_replication: Nothing = None
    layers_to_transform: Nothing = None
    alora_invocation_tokens: Nothing = None
    use_bdlora: Nothing = None
    trainable_token_indices: Nothing = None
    target_parameters: Nothing = None
    arrow_config: Nothing = None
    kasa_config: Nothing = None
    velora_config: Nothing = None
    monteclora_config: Nothing = None


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What an adapter folder says of itself; targets are sorted."""

    folder: Path
    config: AdapterConfig
    rank: int
    target_modules: tuple[str, ...]


def check_adapter(folder: Path, *, base: Mapping[str, Any] | None = None) -> AdapterInfo:
    """Config, rank and targets of a sound adapter; `base` is the content of the base's config.json.

    Raises:
        AdapterMismatch: files are missing, pickled or damaged, contradict each other, hold what is
            no finite number, or do not fit the base.
    """
    config = read_adapter_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterMismatch(f"{folder}: no {WEIGHTS_FILE}; other formats are not loaded")
    targets = tuple(sorted(set(config.target_modules)))
    shapes = _read_shapes(folder)
    _check_shapes(folder, shapes, rank=config.r, base=base)
    found = sorted({module for _, module, _ in shapes})
    if found != list(targets):
        raise AdapterMismatch(
            f"{folder}: {CONFIG_FILE} names {', '.join(targets)}, "
            f"the weights hold {', '.join(found) or 'nothing'}"
        )
    _check_finite(folder)
    return AdapterInfo(folder=folder, config=config, rank=config.r, target_modules=targets)


def engine_rank(ranks: Sequence[int]) -> int:
    """The smallest rank that the engine allows and that holds every adapter."""
    return next(rank for rank in ENGINE_RANKS if rank >= max(ranks))


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The adapter's config, checked.

    Raises:
        AdapterMismatch: it cannot be read, or asks for what is not served.
    """
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise AdapterMismatch(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
        return AdapterConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise AdapterMismatch(f"{folder}: cannot read {CONFIG_FILE}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"][:1]) or "the file"
        raise AdapterMismatch(
            f"{folder}: {CONFIG_FILE}, {field}: {first['msg']}; "
            "it does not describe a LoRA adapter that can be served"
        ) from error


Shapes = Mapping[tuple[int, str, str], tuple[int, ...]]


def _read_shapes(folder: Path) -> Shapes:
    """Shape by layer, module and side (A or B), from the header alone."""
    shapes: dict[tuple[int, str, str], tuple[int, ...]] = {}
    try:
        with safe_open(str(folder / WEIGHTS_FILE), framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                match = _LAYER.fullmatch(name)
                if match is None:
                    raise AdapterMismatch(
                        f"{folder}: weight {name[:200]!r} belongs to no layer of the base"
                    )
                part = weights.get_slice(name)
                if part.get_dtype() not in _NOT_FINITE:
                    raise AdapterMismatch(
                        f"{folder}: weight {name} is {part.get_dtype()}; "
                        f"{', '.join(_NOT_FINITE)} can be served"
                    )
                shapes[int(match[1]), match[2], match[3]] = tuple(part.get_shape())
    except (SafetensorError, OSError) as error:
        raise AdapterMismatch(f"{folder}: {WEIGHTS_FILE} is damaged: {error}") from error
    return shapes


def _check_shapes(
    folder: Path, shapes: Shapes, *, rank: int, base: Mapping[str, Any] | None
) -> None:
    try:
        widths = _widths_in(shapes) if base is None else _widths_of(base)
        num_layers = None if base is None else cast("int", base["num_hidden_layers"])
    except KeyError as error:
        raise AdapterMismatch(
            f"{folder}: the base's config.json has no {error}; only models of the Llama shape "
            "(Llama, Mistral, Qwen2) are served"
        ) from error
    for (layer, module, side), shape in shapes.items():
        where = f"{folder}: weight lora_{side} of {module} in layer {layer}"
        if module not in widths:
            raise AdapterMismatch(f"{where} belongs to no layer of the base")
        num_in, num_out = widths[module]
        expected = (rank, num_in) if side == "A" else (num_out, rank)
        if shape != expected or (num_layers is not None and layer >= num_layers):
            of = (
                "the other layers have"
                if base is None
                else f"the base has {num_layers} layers and needs"
            )
            raise AdapterMismatch(
                f"{where} has shape {list(shape)}, {of} {list(expected)}; "
                "was it trained on another base?"
            )
        if (layer, module, "B" if side == "A" else "A") not in shapes:
            raise AdapterMismatch(f"{where} has no other half")


def _widths_in(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """Input and output width of each module as its first layer has them."""
    widths: dict[str, tuple[int, int]] = {}
    for (layer, module, side), shape in shapes.items():
        other = shapes.get((layer, module, "B"), ())
        if side == "A" and len(shape) == len(other) == 2:
            widths.setdefault(module, (shape[1], other[0]))
    return widths


def _widths_of(base: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Input and output width of each linear layer of the Llama shape (Llama, Mistral, Qwen2)."""
    hidden, inner = base["hidden_size"], base["intermediate_size"]
    heads = base["num_attention_heads"]
    head = base.get("head_dim") or hidden // heads
    kv = (base.get("num_key_value_heads") or heads) * head
    return {
        "q_proj": (hidden, heads * head),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (heads * head, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def _check_finite(folder: Path) -> None:
    """Raise when a weight is infinite or no number; reads the file in pieces.

    By bits, since numpy has no bfloat16: all bits of the exponent are set in such values alone.
    """
    path = folder / WEIGHTS_FILE
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            type_name, mask = _NOT_FINITE[entry["dtype"]]
            begin, end = entry["data_offsets"]
            file.seek(8 + header_bytes + begin)
            left = end - begin
            while left:
                piece = file.read(min(left, _CHUNK_BYTES))
                left -= len(piece)
                bits = np.frombuffer(piece, dtype=type_name)
                if ((bits & mask) == mask).any():
                    raise AdapterMismatch(
                        f"{folder}: weight {name} holds values that are not finite numbers; "
                        "train the role again with a lower learning rate"
                    )

"""Checks of an adapter folder against a base, before an engine sees it.

vLLM dies with the first request for an adapter that does not fit, so what can be known from the
files is checked first: format, rank, targets and shapes, read from headers without loading weights.
Pickled weights are refused by name.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lorid.errors import AdapterMismatch

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# What vLLM accepts as max_lora_rank; its compute pads to this, so the smallest that fits is taken.
ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_([AB])\.weight$")


@dataclass(frozen=True, kw_only=True)
class AdapterInfo:
    """What an adapter folder says of itself."""

    folder: Path
    rank: int
    target_modules: tuple[str, ...]


def check_adapter(folder: Path, *, base: Mapping[str, Any]) -> AdapterInfo:
    """Rank and targets of an adapter that fits; `base` is the content of the base's config.json.

    Raises:
        AdapterMismatch: files are missing, pickled or damaged, or do not fit the base.
    """
    config = _read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():
        raise AdapterMismatch(f"{folder}: no {WEIGHTS_FILE}; other formats are not loaded")
    rank, targets = config.get("r"), config.get("target_modules")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not targets:
        raise AdapterMismatch(f"{folder}: {CONFIG_FILE} does not describe a LoRA adapter")
    if not 1 <= rank <= ENGINE_RANKS[-1]:
        raise AdapterMismatch(f"{folder}: rank {rank}; 1 to {ENGINE_RANKS[-1]} can be served")
    names = (targets,) if isinstance(targets, str) else tuple(sorted(targets))
    _check_shapes(folder, rank=rank, targets=names, base=base)
    return AdapterInfo(folder=folder, rank=rank, target_modules=names)


def engine_rank(adapters: Sequence[AdapterInfo]) -> int:
    """The smallest rank that the engine allows and that holds every adapter."""
    needed = max(adapter.rank for adapter in adapters)
    return next(rank for rank in ENGINE_RANKS if rank >= needed)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterMismatch(f"{folder}: cannot read {CONFIG_FILE}: {error}") from error
    if not isinstance(config, dict):
        raise AdapterMismatch(f"{folder}: {CONFIG_FILE} is not a JSON object")
    return config


def _check_shapes(
    folder: Path, *, rank: int, targets: Sequence[str], base: Mapping[str, Any]
) -> None:
    widths = _module_widths(base)
    found: set[str] = set()
    try:
        with safe_open(str(folder / WEIGHTS_FILE), framework="numpy") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterMismatch(f"{folder}: {WEIGHTS_FILE} is damaged: {error}") from error
    for name, shape in shapes.items():
        match = _LAYER.search(name)
        if match is None or match[2] not in widths:
            raise AdapterMismatch(f"{folder}: weight {name} belongs to no layer of the base")
        num_in, num_out = widths[match[2]]
        expected = [rank, num_in] if match[3] == "A" else [num_out, rank]
        if int(match[1]) >= base["num_hidden_layers"] or list(shape) != expected:
            raise AdapterMismatch(
                f"{folder}: weight {name} has shape {list(shape)}, the base needs {expected} "
                f"in {base['num_hidden_layers']} layers; was it trained on another base?"
            )
        found.add(match[2])
    if found != set(targets):
        raise AdapterMismatch(
            f"{folder}: {CONFIG_FILE} names {', '.join(targets)}, "
            f"the weights hold {', '.join(sorted(found)) or 'nothing'}"
        )


def _module_widths(base: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
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

"""Memory: what a micro-batch's activations take, estimated from the base's shape; what was used.

    activation_bytes(base.config, training, num_tokens=4096)
    peak_memory_bytes(device)

Gradient checkpointing computes the forward pass twice to hold a layer's inputs only; it pays only
where the activations do not fit. The figures a token and layer were counted from the tensors that
autograd keeps for transformers' Llama, Mistral and Qwen2 layers with lorid's adapters.
"""

import resource
import sys
from typing import Any

import psutil
import torch

from lorid.config import TrainingConfig

# The rest is for the optimizer, other roles on this machine and what the estimate does not see.
SHARE_OF_FREE_MEMORY = 0.4
# Layers that read one tensor keep it once.
SHARING = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention",
           "gate_proj": "mlp", "up_proj": "mlp"}  # fmt: skip


def activation_bytes(config: Any, training: TrainingConfig, *, num_tokens: int) -> int:
    """Bytes that the backward pass needs, without checkpointing, logits aside."""
    width, inner = config.hidden_size, config.intermediate_size
    size = torch.empty((), dtype=config.dtype or torch.float32).element_size()
    # Two norms keep float32 copies; then queries, keys, values, outputs and the gated product.
    per_layer = 8 * width + size * (6 * width + 3 * inner)
    inputs = {target: inner if target == "down_proj" else width for target in _targets(training)}
    kept = {SHARING.get(target, target): wide for target, wide in inputs.items()}
    per_layer += size * (sum(kept.values()) + training.rank * len(inputs))
    if training.dropout:
        per_layer += sum(inputs.values())  # a byte for each input that is dropped or kept
    return num_tokens * config.num_hidden_layers * per_layer


def _targets(training: TrainingConfig) -> list[str]:
    return [target for target in training.target_modules if target != "lm_head"]


def fits_in_memory(
    config: Any, training: TrainingConfig, *, num_tokens: int, device: torch.device
) -> bool:
    """Whether a micro-batch of that many tokens fits beside what is loaded."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    needed = activation_bytes(config, training, num_tokens=num_tokens)
    return needed <= SHARE_OF_FREE_MEMORY * free


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was held so far: on a GPU by torch's tensors, else by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""Attention over flattened batches: each sequence sees itself alone, whatever else is in the batch.

    base = load_base(student)
    use_packed_attention(base)
    base(input_ids=flat, position_ids=positions, **lengths)   # (1, all tokens)

transformers can already keep packed sequences apart: without a mask, and with position ids that
begin again at 0, its sdpa and eager paths build one mask of all tokens by all tokens. That is
right and wasteful: 16 sequences of 150 tokens cost 16 times the attention they need. Here each
sequence is attended to by itself: on a GPU by torch's own variable-length flash kernel, elsewhere
by one sdpa call a sequence. Architectures that this cannot serve keep transformers' masks.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from lorid.errors import ConfigError, TrainingError

PACKED_ATTENTION = "lorid_packed"
PLAIN_LAYERS = frozenset({"full_attention", "sliding_attention"})
# What a model may pass that this attention does not do; transformers' own paths do.
UNSERVED = ("softcap", "s_aux", "position_bias")


def use_packed_attention(base: PreTrainedModel) -> None:
    """Switch `base` to the attention of this file where its layers allow it.

    Raises:
        ConfigError: the base mixes tokens by something other than attention, across sequences.
    """
    kinds = set(getattr(base.config, "layer_types", None) or PLAIN_LAYERS)
    if not all(kind.endswith("_attention") for kind in kinds) or "linear_attention" in kinds:
        raise ConfigError(
            f"student: {base.config.model_type} has layers of kind {', '.join(sorted(kinds))}, "
            "which mix flattened sequences; choose a base with attention layers only"
        )
    is_plain = kinds <= PLAIN_LAYERS and not any(
        getattr(base.config, name, None) for name in ("attn_logit_softcapping", "attention_sink")
    )
    supports = getattr(base, "_supports_attention_backend", False)
    base.set_attn_implementation(PACKED_ATTENTION if is_plain and supports else "sdpa")


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface; tensors are (1, heads, tokens, width of a head).

    Without lengths every row is one whole sequence; padding masks and caches are refused.
    """
    if attention_mask is not None or query.shape[2] != key.shape[2]:
        raise TrainingError("packed attention takes no mask and no cache; it is for training only")
    if any(others.get(name) is not None for name in UNSERVED):
        raise TrainingError(f"packed attention cannot do what {type(module).__name__} asks")
    if cu_seq_lens_q is not None and _has_kernel(query, dropout):
        return _by_kernel(
            query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window
        ), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    # One split each, not a slice a sequence: the gradient of a slice is as long as the batch.
    attended = [
        scaled_dot_product_attention(
            *tensors,
            attn_mask=_window_mask(length, sliding_window, query.device),
            dropout_p=dropout,
            is_causal=not _is_windowed(length, sliding_window),
            scale=scaling,
        )
        for length, *tensors in zip(
            lengths, *(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True
        )
    ]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _is_windowed(length: int, window: int | None) -> bool:
    return window is not None and length > window


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    if window is None or length <= window:
        return None
    ones = torch.ones(length, length, dtype=torch.bool, device=device)
    return ones.tril().triu(1 - window)


def _has_kernel(query: torch.Tensor, dropout: float) -> bool:
    """Flash attention over lengths: 16-bit types on NVIDIA's Ampere (8.0) or newer."""
    return (
        query.is_cuda
        and not dropout
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _by_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    # (1, heads, tokens, width) to (tokens, heads, width); a left window of w - 1 sees w tokens.
    queries, keys, values = (
        tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value)
    )
    attended = varlen_attn(
        queries,
        keys,
        values,
        boundaries,
        boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, torch.Tensor)
    return attended.unsqueeze(0)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)

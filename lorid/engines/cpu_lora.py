"""Adapters in a mixed batch on the CPU: a matrix product an adapter instead of a copy a token.

    AsyncEngineArgs(worker_cls="lorid.engines.cpu_lora.GroupedLoraWorker", ...)

vLLM's PyTorch operators for LoRA on the CPU copy the adapter's matrices once for every token of the
batch, and then multiply token by token: with the demo's base that is more work than the base
itself. Here a step's tokens are put in order of their adapters once, each adapter multiplies its
own rows, and what comes of it is added to where they were.

An adapter's matrices are put once into the order in which oneDNN reads them, as vLLM does with the
base's: a second copy of them. Zeros are left out: vLLM holds some for layers that an adapter leaves
alone (of one on q and v most) and for the ranks up to the next that it knows. A token without an
adapter gets exactly nothing, where vLLM's own operators give it the last slot's.
`benchmarks/serve.py --part layouts` measures it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm import _custom_ops as vllm_ops
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker

Product = Callable[[torch.Tensor, torch.Tensor], object]
"""`product(x, out)` writes x times a matrix into `out`."""
# How many numbers of rows oneDNN keeps its plans for; vLLM's own number for the base.
NUM_PLANS = 32


@dataclass(frozen=True)
class Change:
    """What one adapter does to one linear layer, which may be several side by side (q, k and v)."""

    shrink: Product
    """To the ranks of all parts, one beside the other."""
    num_ranks: int
    parts: dict[int, tuple[slice, Product]]
    """By part: where its ranks lie, and from these to the part's outputs."""


class GroupedLora(PunicaWrapperCPU):
    """vLLM's wrapper of LoRA operators, with linear layers by groups of tokens."""

    order: torch.Tensor
    """The tokens' rows in order of their adapters, those without one first."""
    places: torch.Tensor
    """Where each token's row lies in that order."""
    groups: Sequence[tuple[int, slice]] = ()
    """The slot of each adapter of this step, and where its rows lie in that order."""
    adapters: Sequence[int | None] = ()
    """The adapter in each slot."""
    num_loaded = 0
    """How many adapters this process was given. vLLM has made its warming-up with empty ones by
    then, which have the same numbers as the first that come."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.changes: dict[tuple[int, int], tuple[tuple[int, int | None], Change | None]] = {}

    def update_metadata(
        self, mapping: Any, slots: list[int | None], *more: Any, **options: Any
    ) -> None:
        """Once a step: which adapters its tokens have."""
        super().update_metadata(mapping, slots, *more, **options)
        self.adapters = slots
        indices = self.token_lora_indices
        numbers, counts = torch.unique(indices[indices >= 0], return_counts=True)
        self.order = torch.argsort(indices, stable=True)
        self.places = torch.argsort(self.order)
        first = len(indices) - int(counts.sum())
        ends = (first + counts.cumsum(0)).tolist()
        starts = [first, *ends][:-1]
        self.groups = [
            (number, slice(start, end))
            for number, start, end in zip(numbers.tolist(), starts, ends, strict=True)
        ]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **kwargs: Any,
    ) -> None:
        """See vLLM's; `y` is changed in place."""
        found = [
            (rows, change)
            for slot, rows in self.groups
            if (change := self._change(slot, lora_a_stacked, lora_b_stacked))
        ]
        if not found:
            return
        outputs = y.view(-1, y.shape[-1])
        inputs = x.view(-1, x.shape[-1]).index_select(0, self.order)
        shrunk = [
            (rows, change, _filled(change.shrink, inputs[rows], change.num_ranks))
            for rows, change in found
        ]
        start = 0
        for part, width in enumerate(output_slices):
            writing = [one for one in shrunk if part in one[1].parts]
            if writing:
                num_written = sum(len(ranks) for _, _, ranks in writing)
                is_whole = num_written == len(inputs)
                added = (inputs.new_empty if is_whole else inputs.new_zeros)(len(inputs), width)
                for rows, change, ranks in writing:
                    columns, expand = change.parts[part]
                    expand(ranks[:, columns], added[rows])
                # In the tokens' own order: several times as quick as adding row by row there.
                added = added.index_select(0, self.places)
                outputs[:, start : start + width].add_(added, alpha=scale)
            start += width

    def _change(
        self, slot: int, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]
    ) -> Change | None:
        """What the adapter in that slot does to a layer; looked at once for each."""
        place, now = (second[0].data_ptr(), slot), (self.num_loaded, self.adapters[slot])
        known = self.changes.get(place)
        if known is None or known[0] != now or not self.num_loaded:
            known = self.changes[place] = (now, change_of(slot, first, second))
        return known[1]


def change_of(
    slot: int, first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]
) -> Change | None:
    """Of the adapter in a slot of vLLM's stacks; None where it leaves the layer alone.

    `first` has a [slots, 1, rank, inputs] and `second` a [slots, 1, outputs, rank] for each part.
    """
    down: list[torch.Tensor] = []
    parts: dict[int, tuple[slice, Product]] = {}
    end = 0
    for part, (one, other) in enumerate(zip(first, second, strict=True)):
        used = (one[slot, 0].any(dim=1) & other[slot, 0].any(dim=0)).nonzero()
        if len(used):
            rank = int(used.max()) + 1
            down.append(one[slot, 0, :rank])
            parts[part] = (slice(end, end + rank), product_of(other[slot, 0, :, :rank]))
            end += rank
    if not parts:
        return None
    return Change(shrink=product_of(torch.cat(down)), num_ranks=end, parts=parts)


def product_of(weight: torch.Tensor) -> Product:
    """With the transpose of [outputs, inputs], as a linear layer has it."""
    if not vllm_ops._supports_onednn:
        transposed = weight.T
        return lambda x, out: torch.mm(x, transposed, out=out)
    handler = vllm_ops.create_onednn_mm(weight.contiguous().T, NUM_PLANS)

    def multiply(x: torch.Tensor, out: torch.Tensor) -> None:
        torch.ops._C.onednn_mm(out, x, None, handler.handler_tensor)

    return multiply


def _filled(product: Product, x: torch.Tensor, width: int) -> torch.Tensor:
    out = x.new_empty(len(x), width)
    product(x, out)
    return out


class GroupedLoraWorker(CPUWorker):
    """vLLM's worker on the CPU, with `GroupedLora`.

    vLLM makes it by its name in the engine's own process; what is set elsewhere does not get there.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        name = f"{GroupedLora.__module__}.{GroupedLora.__qualname__}"
        current_platform.get_punica_wrapper = lambda: name
        super().__init__(*arguments, **options)

    def add_lora(self, lora_request: Any) -> bool:
        """See vLLM's; what is known of layers is looked at anew."""
        GroupedLora.num_loaded += 1
        return super().add_lora(lora_request)

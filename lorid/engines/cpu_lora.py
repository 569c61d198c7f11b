"""Adapters in a mixed batch on the CPU: a matrix product an adapter instead of a copy a token.

    AsyncEngineArgs(worker_cls="lorid.engines.cpu_lora.GroupedLoraWorker", ...)

vLLM's PyTorch operators for LoRA on the CPU copy the adapter's matrices once for every token of the
batch, and then multiply token by token: with the demo's base that is more work than the base
itself. Here a step's tokens are put in order of their adapters once, each adapter multiplies its
own rows, and what comes of it is added to where they were. Layers that an adapter leaves alone, for
which vLLM holds zeros, are passed over: of an adapter on q and v most. A token without an adapter
gets exactly nothing, where vLLM's own operators give it the last slot's.
`benchmarks/serve.py --part layouts` measures it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker


class GroupedLora(PunicaWrapperCPU):
    """vLLM's wrapper of LoRA operators, with linear layers by groups of tokens."""

    order: torch.Tensor
    """The rows of tokens that have an adapter, in order of these."""
    groups: Sequence[tuple[int, slice]] = ()
    """The slot of each adapter of this step, and where its rows lie in that order."""
    adapters: Sequence[int | None] = ()
    """The adapter in each slot."""
    num_loaded = 0
    """How many adapters this process was given. vLLM has made its warming-up with empty ones by
    then, which have the same numbers as the first that come."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.changes: dict[tuple[int, int], tuple[tuple[int, int | None], bool]] = {}

    def update_metadata(
        self, mapping: Any, slots: list[int | None], *more: Any, **options: Any
    ) -> None:
        """Once a step: which adapters its tokens have."""
        super().update_metadata(mapping, slots, *more, **options)
        self.adapters = slots
        indices = self.token_lora_indices
        numbers, counts = torch.unique(indices[indices >= 0], return_counts=True)
        order = torch.argsort(indices, stable=True)
        self.order = order[len(order) - int(counts.sum()) :]
        ends = counts.cumsum(0).tolist()
        starts = [0, *ends][:-1]
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
        active = [
            [one for one in self.groups if self._does_change(second, one[0])]
            for second in lora_b_stacked
        ]
        if not any(active):
            return
        rows, inputs = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])[self.order]
        added = rows.new_zeros(len(inputs), sum(output_slices))
        start = 0
        parts = zip(active, lora_a_stacked, lora_b_stacked, output_slices, strict=True)
        for groups, first, second, width in parts:
            for number, group in groups:
                shrunk = inputs[group] @ first[number, 0].T
                out = added[group, start : start + width]
                torch.mm(shrunk, second[number, 0].T, out=out)
            start += width
        rows[:, :start].index_add_(0, self.order, added, alpha=scale)

    def _does_change(self, second: torch.Tensor, number: int) -> bool:
        """Whether the adapter in that slot changes a layer; looked at once for each."""
        place, now = (second.data_ptr(), number), (self.num_loaded, self.adapters[number])
        known = self.changes.get(place)
        if known is None or known[0] != now or not self.num_loaded:
            known = self.changes[place] = (now, bool(second[number].any()))
        return known[1]


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

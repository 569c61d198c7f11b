"""Adapters in a mixed batch on the CPU: whole matrix products instead of a copy a token.

    AsyncEngineArgs(worker_cls="lorid.engines.cpu_lora.DenseLoraWorker", ...)

vLLM's PyTorch operators for LoRA on the CPU copy the adapter's matrices once for every token of the
batch, and then multiply token by token: with the demo's base that is more work than the base
itself. Here every token is multiplied with all adapters' first matrices at once; what belongs to
another token's adapter is set to zero; then each adapter's second matrix takes its own. That is
more arithmetic (times the number of adapters, of a small part) and far less memory traffic. A
token without an adapter gets exactly nothing, where vLLM's own operators give it the last slot's.
`benchmarks/serve.py --part layouts` measures it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker


class DenseLora(PunicaWrapperCPU):
    """vLLM's wrapper of LoRA operators, with linear layers as dense products."""

    present: Sequence[int] = ()
    belongs: torch.Tensor

    def update_metadata(self, *arguments: Any, **options: Any) -> None:
        """Once a step: which adapters its tokens have."""
        super().update_metadata(*arguments, **options)
        indices = self.token_lora_indices
        self.present = [n for n in torch.unique(indices).tolist() if n >= 0]
        columns = torch.tensor(self.present, dtype=indices.dtype)
        # One row a token, one column an adapter of this step: 1 where they belong together.
        self.belongs = (indices[:, None] == columns[None, :]).to(torch.float32)

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
        if not self.present:
            return
        rows, inputs = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        belongs = self.belongs * scale
        start = 0
        for first, second, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            out = rows[:, start : start + width]
            start += width
            for column, number in enumerate(self.present):
                shrunk = inputs @ first[number, 0].T
                shrunk *= belongs[:, column : column + 1]
                out.addmm_(shrunk, second[number, 0].T)


class DenseLoraWorker(CPUWorker):
    """vLLM's worker on the CPU, with `DenseLora`.

    vLLM makes it by its name in the engine's own process; what is set elsewhere does not get there.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        name = f"{DenseLora.__module__}.{DenseLora.__qualname__}"
        current_platform.get_punica_wrapper = lambda: name
        super().__init__(*arguments, **options)

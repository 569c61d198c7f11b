"""LoRA layers for flattened batches: one base product for all tokens, then each role's own.

    tokens   [ intuitive ........ | knowledge .... | deep ............. ]
    base       x W^T, once
    adapter    + s x A_ir^T B_ir^T | + s x A_kg^T ..| + s x A_dr^T ...

    route = Route(); route_adapters(model, route, dropout=0.1)
    route.set([Stretch(role=role, start=0, end=70, key="1-ir-0"), ...])

The parameters stay PEFT's; only the forward of its plain LoRA layers is replaced, and only while a
route is set. A stretch is a sequence: its dropout is drawn from its own key and the layer's number,
so it is the same however sequences are batched, beside whichever roles, and after any resume.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear as LoraLinear
from torch.nn import functional

from lorid.method.roles import Role


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One sequence of the batch: whose it is, where it lies, and what its dropout is drawn from."""

    role: Role
    start: int
    end: int
    key: str


@dataclass
class Route:
    """Which tokens of the batch at hand belong to which role; shared by all layers of a model."""

    stretches: Sequence[Stretch] = ()
    slices: Sequence[tuple[Role, int, int]] = field(default=())

    def set(self, stretches: Sequence[Stretch]) -> None:
        """Route the next batch; stretches of one role lie side by side."""
        self.stretches = stretches
        self.slices = tuple(_merged(stretches))

    def clear(self) -> None:
        """Give the layers back to PEFT."""
        self.set(())


def route_adapters(model: PeftModel, route: Route, *, dropout: float) -> int:
    """Route the model's plain LoRA layers; returns how many LoRA layers are left to PEFT."""
    left = number = 0
    for layer in model.modules():
        if not isinstance(layer, LoraLinear):
            continue
        is_plain = type(layer.get_base_layer()) is torch.nn.Linear and not layer.lora_variant
        if is_plain and not layer.fan_in_fan_out:
            # An instance's own `forward` comes before its class's.
            layer.forward = _RoutedForward(layer, route, number=number, dropout=dropout)
        else:
            left += 1
        number += 1
    return left


class _RoutedForward:
    """The forward of one LoRA layer."""

    def __init__(self, layer: LoraLinear, route: Route, *, number: int, dropout: float) -> None:
        self.layer, self.route, self.number, self.dropout = layer, route, number, dropout

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer, slices = self.layer, self.route.slices
        if not slices:
            return LoraLinear.forward(layer, x, *args, **kwargs)
        mask = self._mask(x) if self.dropout and layer.training else None
        pairs = [
            module[role].weight for role, _, _ in slices for module in (layer.lora_A, layer.lora_B)
        ]
        base = layer.get_base_layer()
        plan = [(start, end, float(layer.scaling[role])) for role, start, end in slices]
        result = _SlicedLora.apply(
            x.view(-1, x.shape[-1]), base.weight, base.bias, mask, 1 - self.dropout, plan, *pairs
        )
        return result.view(*x.shape[:-1], -1)

    def _mask(self, x: torch.Tensor) -> torch.Tensor:
        """Which inputs are kept: drawn sequence by sequence."""
        mask = torch.empty(x.shape[-2], x.shape[-1], dtype=torch.bool, device=x.device)
        generator = torch.Generator(device=x.device)
        for stretch in self.route.stretches:
            generator.manual_seed(_seed_of(stretch.key, self.number))
            mask[stretch.start : stretch.end].bernoulli_(1 - self.dropout, generator=generator)
        return mask


class _SlicedLora(torch.autograd.Function):
    """x W^T + b, and to each slice of rows its own scaled (kept x) A^T B^T, added in place.

    Autograd would keep the dropped input, and make a tensor of every sum on the way; this keeps x
    (which layers share), one bit-like mask, and x A^T. Frozen weights get no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        mask: torch.Tensor | None,
        keep: float,
        plan: Sequence[tuple[int, int, float]],
        *pairs: torch.Tensor,
    ) -> torch.Tensor:
        result = functional.linear(x, weight, bias)
        inner = []
        for index, (start, end, scale) in enumerate(plan):
            down, up = (pair.to(x.dtype) for pair in pairs[2 * index : 2 * index + 2])
            hidden = _kept(x, mask, keep, start, end) @ down.T
            result[start:end].addmm_(hidden, up.T, alpha=scale)
            inner.append(hidden)
        ctx.save_for_backward(x, weight, mask, *pairs, *inner)
        ctx.keep, ctx.plan = keep, plan
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: torch.Tensor
    ) -> tuple[Any, ...]:
        (grad,) = grad_outputs
        x, weight, mask, *rest = ctx.saved_tensors
        num_pairs = 2 * len(ctx.plan)
        pairs, inner = rest[:num_pairs], rest[num_pairs:]
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        grads: list[torch.Tensor] = []
        for index, (start, end, scale) in enumerate(ctx.plan):
            down, up = (pair.to(x.dtype) for pair in pairs[2 * index : 2 * index + 2])
            part = grad[start:end]
            grad_hidden = (part @ up).mul_(scale)
            grads.append(grad_hidden.T @ _kept(x, mask, ctx.keep, start, end))
            grads.append((part.T @ inner[index]).mul_(scale))
            if grad_x is None:
                continue
            if mask is None:
                grad_x[start:end].addmm_(grad_hidden, down)
            else:
                kept = mask[start:end].to(x.dtype).mul_(1 / ctx.keep)
                grad_x[start:end].addcmul_(grad_hidden @ down, kept)
        # The adapter's own weights may be finer than the arithmetic: float32 beside bfloat16.
        finer = (one.to(pair.dtype) for one, pair in zip(grads, pairs, strict=True))
        return grad_x, None, None, None, None, None, *finer


def _kept(
    x: torch.Tensor, mask: torch.Tensor | None, keep: float, start: int, end: int
) -> torch.Tensor:
    if mask is None:
        return x[start:end]
    return x[start:end] * mask[start:end].to(x.dtype).mul_(1 / keep)


def _merged(stretches: Sequence[Stretch]) -> Iterator[tuple[Role, int, int]]:
    start = 0
    for index, stretch in enumerate(stretches):
        is_last = index + 1 == len(stretches)
        if is_last or stretches[index + 1].role is not stretch.role:
            yield stretch.role, start, stretch.end
            start = stretch.end


def _seed_of(key: str, number: int) -> int:
    digest = hashlib.blake2b(f"{key}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

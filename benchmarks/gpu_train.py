"""Training on one GPU: which part of the card's measured bf16 rate it reaches, and in what memory.

    python benchmarks/gpu_train.py [--out]     # one H200 or H100; meant to take under 9 minutes
    python benchmarks/gpu_train.py --toy       # a check that the script runs, on a CPU

It has not been run on a GPU yet: no figure of this project comes from it.

Needs torch, peft and lorid; no Ray. Random weights, Llama-2-7B's and Llama-3.2-1B's shape, rank 512
on q and v, dropout 0.1. Model FLOPs a token are 4N + 6P + 6Lds: N base matmul parameters with the
head, P of one adapter, L layers, d width, s mean sequence length. What checkpointing computes again
is not counted; the head counts for every token, though lorid computes it only where there is a
label (`share_as_computed` leaves the rest out). Beside lorid, solo and fused, PEFT as the published
recipe runs it: four padded sequences at a time, accumulated, with checkpointing, under autocast. A
fused step holds each role's step: three times the sequences of a solo one, as long as those.
"""

import argparse
import gc
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from lorid.config import ModelConfig, RunConfig, TeacherConfig, TrainingConfig
from lorid.method.roles import Role
from lorid.training.adapters import lora_config
from lorid.training.batches import Example
from lorid.training.loop import TrainingSession

NUM_SEQUENCES = 16
WARMUP_STEPS, STEPS = 2, 5
SIGMA = 0.35  # spread of sequence lengths, as log-normal
WAYS = ("lorid solo", "lorid fused", "peft padded, checkpointing")
# Untrained adapters add nothing, so the first loss is the base's, whoever computes it and in bf16.
LOSS_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's sizes and the adapter's rank."""

    name: str
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    rank: int
    is_tied: bool

    def config(self) -> LlamaConfig:
        """As transformers'."""
        return LlamaConfig(
            vocab_size=self.vocab, hidden_size=self.width, intermediate_size=self.inner,
            num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads, max_position_embeddings=4096,
            tie_word_embeddings=self.is_tied,
        )  # fmt: skip

    def flops_per_token(self, mean_length: float, *, head_share: float = 1.0) -> float:
        """4N + 6P + 6Lds; the head, tied or not, is multiplied by `head_share` of the tokens."""
        kv_width = self.width // self.heads * self.kv_heads
        layer = self.width * (2 * self.width + 2 * kv_width) + 3 * self.width * self.inner
        base = self.layers * layer + head_share * self.width * self.vocab
        adapter = self.layers * self.rank * (3 * self.width + kv_width)
        return 4 * base + 6 * adapter + 6 * self.layers * self.width * mean_length


SHAPES = (
    Shape(name="llama-2-7b", width=4096, inner=11008, layers=32, heads=32, kv_heads=32,
          vocab=32000, rank=512, is_tied=False),
    Shape(name="llama-3.2-1b", width=2048, inner=8192, layers=16, heads=32, kv_heads=8,
          vocab=128256, rank=512, is_tied=True),
)  # fmt: skip
TOY = (
    Shape(name="toy", width=64, inner=128, layers=2, heads=4, kv_heads=2, vocab=97, rank=8,
          is_tied=True),
)  # fmt: skip


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of a square product of random matrices, the best of five timings."""
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    repeats = 10
    rates = []
    for _ in range(6):
        _wait(device)
        started = time.perf_counter()
        for _ in range(repeats):
            one @ other
        _wait(device)
        rates.append(2 * size**3 * repeats / (time.perf_counter() - started))
    return max(rates[1:])


def examples_of(total: int, *, vocab: int, seed: int) -> list[Example]:
    """Sixteen sequences of about `total` tokens together; the last 60% of each are supervised."""
    rng = random.Random(seed)
    shares = [rng.lognormvariate(0, SIGMA) for _ in range(NUM_SEQUENCES)]
    examples = []
    for share in shares:
        length = max(8, round(total * share / sum(shares)))
        ids = [rng.randrange(vocab) for _ in range(length)]
        labels = [-100] * (length * 2 // 5) + ids[length * 2 // 5 :]
        examples.append(Example(input_ids=ids, labels=labels))
    return examples


def new_base(shape: Shape, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Random weights, made where they are used."""
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(shape.config())
    finally:
        torch.set_default_dtype(torch.float32)
    model.config.dtype = dtype
    return model


def training_of(shape: Shape) -> TrainingConfig:
    """The published settings at this shape's rank."""
    return TrainingConfig(
        rank=shape.rank, alpha=2 * shape.rank, dropout=0.1, micro_batch_tokens=8192,
        sequences_per_step=NUM_SEQUENCES, num_epochs=WARMUP_STEPS + STEPS, warmup_ratio=0.0,
    )  # fmt: skip


def lorid_step(
    shape: Shape, base: PreTrainedModel, tokens: int, roles: list[Role], device: torch.device
) -> tuple[Callable[[], float], list[Example], TrainingSession]:
    """A step of lorid's session, `tokens` of each role; returns the step and what is in it."""
    examples = {
        role: examples_of(tokens, vocab=shape.vocab, seed=number)
        for number, role in enumerate(roles)
    }
    model = ModelConfig(path="random")
    config = RunConfig(
        name="gpu", student=model, teacher=TeacherConfig(model=model), training=training_of(shape)
    )
    session = TrainingSession(config, examples=examples, device=device, base=base)
    everything = [one for found in examples.values() for one in found]

    def step() -> float:
        metrics = session.train_step()
        assert all(one.grad_norm > 0 for one in metrics)
        return metrics[0].loss

    return step, everything, session


def peft_step(
    shape: Shape, base: PreTrainedModel, tokens: int, device: torch.device
) -> tuple[Callable[[], float], list[Example]]:
    """The published recipe's step: PEFT, padding, four sequences at a time, checkpointing."""
    examples = examples_of(tokens, vocab=shape.vocab, seed=0)
    model = get_peft_model(base, lora_config(training_of(shape)))
    model.train()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=5e-5, weight_decay=0.0, fused=True)
    num_supervised = sum(example.num_supervised for example in examples)
    batches = [_padded(examples[start : start + 4], device) for start in range(0, 16, 4)]

    def step() -> float:
        total = 0.0
        for batch in batches:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = model(**batch, num_items_in_batch=num_supervised).loss
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        assert float(norm) > 0
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step, examples


def _padded(examples: list[Example], device: torch.device) -> dict[str, torch.Tensor]:
    longest = max(example.num_tokens for example in examples)

    def rows(values: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (longest - len(row)) for row in values], device=device)

    return {
        "input_ids": rows([example.input_ids for example in examples], 0),
        "labels": rows([example.labels for example in examples], -100),
        "attention_mask": rows([[1] * example.num_tokens for example in examples], 0),
    }


def measured(
    step: Callable[[], float], examples: list[Example], shape: Shape, *, rate: float,
    device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    """Tokens a second, share of the measured rate, peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds, losses = [], []
    for number in range(WARMUP_STEPS + STEPS):
        _wait(device)
        started = time.perf_counter()
        losses.append(step())
        _wait(device)
        if number >= WARMUP_STEPS:
            seconds.append(time.perf_counter() - started)
    num_tokens = sum(example.num_tokens for example in examples)
    num_supervised = sum(example.num_supervised for example in examples)
    mean = num_tokens / len(examples)
    flops = num_tokens * shape.flops_per_token(mean)
    computed = num_tokens * shape.flops_per_token(mean, head_share=num_supervised / num_tokens)
    middle = statistics.median(seconds)
    assert all(math.isfinite(loss) for loss in losses)
    return {
        "tokens": num_tokens,
        "mean_length": mean,
        "supervised_tokens": num_supervised,
        "step_s": middle,
        "tokens_per_s": num_tokens / middle,
        "share_of_matmul_rate": flops / middle / rate,
        "share_as_computed": computed / middle / rate,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 1024**3
        if device.type == "cuda"
        else None,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def run(device: torch.device, *, shapes: tuple[Shape, ...], sizes: list[int]) -> dict[str, Any]:
    """Every shape, size and way."""
    is_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if is_gpu else torch.float32
    rate = matmul_rate(device, dtype, 8192 if is_gpu else 256)
    print(f"matmul rate {rate / 1e12:.1f} TFLOP/s", flush=True)
    rows: list[dict[str, Any]] = []
    for shape in shapes:
        for tokens in sizes:
            found = [
                measured_way(way, shape, tokens, rate=rate, device=device, dtype=dtype)
                for way in WAYS
            ]
            first = found[0]["first_loss"]
            gaps = [abs(row["first_loss"] - first) / first for row in found]
            assert max(gaps) < LOSS_TOLERANCE, f"the ways compute different losses: {gaps}"
            rows += found
    return {"matmul_flops_per_s": rate, "rows": rows}


def measured_way(
    way: str, shape: Shape, tokens: int, *, rate: float, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """One row, over a base of its own, for adapters change it; its memory is free afterwards."""
    base = new_base(shape, device, dtype)
    extra: dict[str, Any] = {}
    if way.startswith("lorid"):
        roles = list(Role) if way.endswith("fused") else [next(iter(Role))]
        step, examples, session = lorid_step(shape, base, tokens, roles, device)
        extra = {"is_checkpointing": session.is_checkpointing}
        del session
    else:
        step, examples = peft_step(shape, base, tokens, device)
    found = measured(step, examples, shape, rate=rate, device=device)
    row = {"shape": shape.name, "way": way, "size": tokens, **extra, **found}
    print(json.dumps(row), flush=True)
    del step, base
    # Models hold themselves in circles, and lorid asks how much memory is free.
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and print; write with --out."""
    parser = argparse.ArgumentParser(description="Measure training on one GPU.")
    parser.add_argument("--toy", action="store_true", help="tiny shapes, on a CPU if need be")
    parser.add_argument(
        "--out", action="store_true", help="write benchmarks/results/gpu-train-DATE.json"
    )
    args = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not args.toy:
        raise SystemExit("no GPU here; --toy checks that the script runs")
    device = torch.device("cuda" if has_gpu else "cpu")
    started = time.monotonic()
    found = run(
        device,
        shapes=TOY if args.toy else SHAPES,
        sizes=[256] if args.toy else [2048, 4096, 8192],
    )
    assert "ray" not in sys.modules, "training must not need Ray"
    found |= {
        "device": torch.cuda.get_device_name(device) if has_gpu else "cpu",
        "seconds": round(time.monotonic() - started, 1),
        "load_average": os.getloadavg(),
    }
    if args.out:
        from result_file import write_result

        command = f"python benchmarks/gpu_train.py{' --toy' * args.toy} --out"
        packages = ("torch", "transformers", "peft")
        print(write_result("gpu-train", found, command=command, packages=packages))
    print(json.dumps({key: found[key] for key in ("device", "seconds")}))


if __name__ == "__main__":
    main()

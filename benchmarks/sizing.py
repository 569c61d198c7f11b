"""What a full GSM8K run takes and costs, worked out from stated inputs: benchmarks/sizing.yaml.

    python benchmarks/sizing.py                    # the tables of docs/sizing.md
    python benchmarks/sizing.py my-inputs.yaml     # with your prices, card and measured shares

Times are physical limits divided by the shares of them that the inputs assume. A rate that you have
measured replaces them by the share that it is.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml

from lorid.config import TrainingConfig
from lorid.training.memory import SHARE_OF_FREE_MEMORY, activation_bytes

INPUTS = Path(__file__).with_name("sizing.yaml")
GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Model:
    """A dense decoder's shape."""

    name: str
    layers: int
    width: int
    inner: int
    kv_width: int
    vocab: int
    tied: bool = False
    rank: int = 0

    @property
    def matmul_parameters(self) -> int:
        """Parameters that every token is multiplied with, the output's too."""
        attention = 2 * self.width**2 + 2 * self.width * self.kv_width
        layer = attention + 3 * self.width * self.inner
        return self.layers * layer + self.width * self.vocab

    @property
    def parameters(self) -> int:
        """All of them: the embedding is another matrix, unless it is tied to the output."""
        return self.matmul_parameters + (0 if self.tied else self.width * self.vocab)

    @property
    def adapter_parameters(self) -> int:
        """Of one role's adapter, on the query and value projections."""
        return self.layers * self.rank * (2 * self.width + self.width + self.kv_width)

    @property
    def kv_bytes(self) -> int:
        """Of one token's keys and values, in bfloat16."""
        return 2 * 2 * self.layers * self.kv_width


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Tokens a second, and whether training computes its forward pass twice."""

    train: float
    checkpointing: bool
    decode: float
    prefill: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of all stages."""

    student: str
    mode: str
    hours: float
    gpu_hours: float
    on_demand: float
    spot: float


def rates_of(model: Model, inputs: dict[str, Any], *, num_adapters: int = 3) -> Rates:
    """What one GPU does of that model."""
    share, flops = inputs["efficiency"], inputs["gpu"]["tflops"] * 1e12
    needs, adapter = model.matmul_parameters, model.adapter_parameters
    checkpointing = _must_checkpoint(model, inputs)
    work = 4 * needs + 6 * adapter + (2 * needs + 2 * adapter if checkpointing else 0)
    return Rates(
        train=flops * share["train"] / work,
        checkpointing=checkpointing,
        decode=share["decode"] * _decode_limit(model, inputs, num_adapters=num_adapters),
        prefill=flops * share["prefill"] / (2 * needs + 2 * adapter),
    )


def _must_checkpoint(model: Model, inputs: dict[str, Any]) -> bool:
    """lorid's own rule: activations get a share of what base, adapter and optimizer leave."""
    held = 2 * model.parameters + 16 * model.adapter_parameters
    free = inputs["gpu"]["memory_gib"] * GIB - held
    shape = SimpleNamespace(
        hidden_size=model.width, intermediate_size=model.inner,
        num_hidden_layers=model.layers, dtype=torch.bfloat16,
    )  # fmt: skip
    training = TrainingConfig(rank=max(1, model.rank))
    needed = activation_bytes(shape, training, num_tokens=inputs["workload"]["step_tokens"])
    return needed > SHARE_OF_FREE_MEMORY * free


def _decode_limit(model: Model, inputs: dict[str, Any], *, num_adapters: int) -> float:
    """Tokens a second that memory's bandwidth and arithmetic allow, with a full batch."""
    work, gpu = inputs["workload"], inputs["gpu"]
    context = work["generation_prompt_tokens"] + work["generation_output_tokens"] / 2
    weights = 2 * model.parameters + 2 * num_adapters * model.adapter_parameters
    room = 0.9 * gpu["memory_gib"] * GIB - weights
    batch = min(inputs["engine_sequences"], int(room / (context * model.kv_bytes)))
    read = 2 * (model.matmul_parameters + num_adapters * model.adapter_parameters)
    by_bandwidth = (read + batch * context * model.kv_bytes) / (gpu["bandwidth_tb_s"] * 1e12)
    work_a_token = 2 * (model.matmul_parameters + model.adapter_parameters)
    return batch / max(by_bandwidth, batch * work_a_token / (gpu["tflops"] * 1e12))


def runs_of(student: Model, inputs: dict[str, Any]) -> Iterator[Run]:
    """With three trainers on a GPU each, and with one that trains all three."""
    work, minutes, prices = inputs["workload"], inputs["minutes"], inputs["prices"]
    teacher = rates_of(Model(**inputs["models"]["teacher"]), inputs, num_adapters=0)
    rates = rates_of(student, inputs)
    knowledge = _seconds(
        teacher, prompt=work["teacher_prompt_tokens"], output=work["teacher_output_tokens"]
    )
    evaluation = _seconds(
        rates,
        prompt=work["generations"] * work["generation_prompt_tokens"],
        output=work["generations"] * work["generation_output_tokens"],
    )
    tokens = work["train_tokens"].values()
    for mode, spans in (("separate", list(tokens)), ("fused", [sum(tokens)])):
        trained = [count / rates.train for count in spans]
        # The first GPU's node does everything; the others come for training.
        engines = 3 * minutes["engine"] * 60
        first = minutes["new_node"] * 60 + engines + knowledge + max(trained) + evaluation
        others = [60 * (minutes["new_node"] + minutes["engine"]) + one for one in trained[:-1]]
        idle = 60 * minutes["idle"] * len(spans)
        # New nodes come while the first one waits for them.
        wall = first + (60 * minutes["new_node"] if others else 0)
        gpu_hours = (wall + sum(others) + idle) / 3600
        hours = (wall + 60 * minutes["idle"]) / 3600
        head = hours * prices["head"]
        gpu = gpu_hours * prices["gpu"]
        yield Run(
            student=student.name, mode=mode, hours=hours, gpu_hours=gpu_hours,
            on_demand=head + gpu, spot=head + gpu * prices["spot_share"],
        )  # fmt: skip


def _seconds(rates: Rates, *, prompt: float, output: float) -> float:
    return prompt / rates.prefill + output / rates.decode


def tables(inputs: dict[str, Any]) -> str:
    """Both tables, as Markdown."""
    students = [Model(**one) for one in inputs["models"]["students"]]
    teacher = Model(**inputs["models"]["teacher"])
    lines = [
        f"| model on one {inputs['gpu']['name']} | rank | GB of weights | GB of an adapter "
        "| trains, tokens/s | writes, tokens/s | reads, tokens/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in (*students, teacher):
        rates = rates_of(model, inputs, num_adapters=3 if model.rank else 0)
        again = ", forward twice" if rates.checkpointing else ""
        trains = f"{rates.train:,.0f}{again}" if model.rank else "-"
        adapter = f"{2 * model.adapter_parameters / 1e9:.2f}" if model.rank else "-"
        lines.append(
            f"| {model.name} | {model.rank or '-'} | {2 * model.parameters / 1e9:.1f} | {adapter} "
            f"| {trains} | {rates.decode:,.0f} | {rates.prefill:,.0f} |"
        )
    lines += [
        "",
        "| student | `training.mode` | GPUs at most | hours | GPU-hours | USD on demand "
        f"| USD, spot at {inputs['prices']['spot_share']:g} |",
        "|---|---|---|---|---|---|---|",
    ]
    for student in students:
        for run in runs_of(student, inputs):
            lines.append(
                f"| {run.student} | {run.mode} | {3 if run.mode == 'separate' else 1} "
                f"| {run.hours:.1f} | {run.gpu_hours:.1f} | {run.on_demand:.2f} | {run.spot:.2f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else INPUTS
    print(tables(yaml.safe_load(file.read_text())))

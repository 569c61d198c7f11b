"""One training run in a process of its own, by lorid or by TRL: started by `benchmarks/train.py`.

    python benchmarks/train_contenders.py lorid '{"folder": ..., "roles": [...], ...}'

Prints one JSON line: losses by role and step, processor and wall seconds of the steps after the
first, tokens in them, and seconds and processor seconds of the whole process. The same base,
sequences, order, settings and seed for every contender. `profile` says instead what one step of a
role, and of three fused, spends its time on.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from train_files import ALPHA, LEARNING_RATE, RANK, SEED

STARTED = time.monotonic()
# Which of torch's operations are what; all others are element by element, or move data.
PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm")
ATTENTION = "aten::_scaled_dot_product"


def read_rows(folder: Path, role: str) -> list[dict[str, Any]]:
    """The role's sequences: input_ids and labels."""
    return json.loads((folder / f"{role}.json").read_text())


def config_of(folder: Path, settings: dict[str, Any]) -> Any:
    """lorid's config for the benchmark."""
    from lorid.config import ModelConfig, RunConfig, TeacherConfig, TrainingConfig

    model = ModelConfig(path=str(folder / "base"), dtype="float32")
    return RunConfig(
        name="bench",
        seed=SEED,
        student=model,
        teacher=TeacherConfig(model=model),
        training=TrainingConfig(
            rank=RANK, alpha=ALPHA, dropout=settings["dropout"], learning_rate=LEARNING_RATE,
            num_epochs=1, warmup_ratio=0.0, sequences_per_step=settings["sequences_per_step"],
            tokens_per_step=settings.get("tokens_per_step"), gradient_checkpointing="off",
            micro_batch_tokens=settings.get("micro_batch_tokens", 8192), num_gpus=0,
        ),
    )  # fmt: skip


class Watch:
    """Processor and wall seconds since the end of the first step, which warms up."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.started: tuple[float, float] | None = None

    def step_ended(self) -> None:
        """Start at the first call, measure at each later one."""
        now = (time.process_time(), time.monotonic())
        if self.started is None:
            self.started = now
        self.cpu, self.wall = now[0] - self.started[0], now[1] - self.started[1]


def placed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """So arranged that lorid's shuffle takes them in the order of the file, as TRL reads them."""
    from lorid.training.steps import plan_steps

    plan = plan_steps([1] * len(rows), num_epochs=1, sequences_per_step=1, seed=SEED)
    found = dict(zip((index for (index,) in plan), rows, strict=True))
    return [found[index] for index in range(len(rows))]


def session_of(folder: Path, settings: dict[str, Any]) -> Any:
    """Solo with one role, fused with several."""
    import torch

    from lorid.method.roles import Role
    from lorid.training.batches import Example
    from lorid.training.loop import TrainingSession

    examples = {
        Role(role): [Example(**row) for row in placed(read_rows(folder, role))]
        for role in settings["roles"]
    }
    config = config_of(folder, settings)
    return TrainingSession(config, examples=examples, device=torch.device("cpu"))


def run_lorid(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Every step of the session."""
    session, watch = session_of(folder, settings), Watch()
    while session.is_active:
        session.train_step()
        watch.step_ended()
    counted = [m for track in session.tracks.values() for m in track.metrics if m.step > 1]
    assert all(m.grad_norm > 0 for m in counted)
    return {
        "losses": {str(r): [m.loss for m in t.metrics] for r, t in session.tracks.items()},
        "cpu_s": watch.cpu,
        "wall_s": watch.wall,
        "supervised_tokens": sum(m.supervised_tokens for m in counted),
        "tokens": sum(m.num_tokens for m in counted),
    }


def run_trl(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """TRL's SFTTrainer over PEFT: padded, or with its own packing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

    (role,) = settings["roles"]
    rows = read_rows(folder, role)
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    torch.manual_seed(SEED)
    lora = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=settings["dropout"],
        target_modules=["q_proj", "v_proj"], bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base, lora)
    watch, seen = Watch(), []

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step_ended()

    trainer = SFTTrainer(
        model=model,
        train_dataset=Dataset.from_list([{k: r[k] for k in ("input_ids", "labels")} for r in rows]),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        callbacks=[Steps()],
        args=SFTConfig(
            output_dir=str(folder / f"trl-{role}-{os.getpid()}"),
            per_device_train_batch_size=settings["batch"],
            gradient_accumulation_steps=settings["accumulate"], num_train_epochs=1,
            learning_rate=LEARNING_RATE, warmup_steps=0, lr_scheduler_type="cosine",
            weight_decay=0.0, max_grad_norm=1.0, logging_steps=1, report_to=[], use_cpu=True,
            save_strategy="no", disable_tqdm=True, bf16=False, gradient_checkpointing=False,
            train_sampling_strategy="sequential", max_length=settings["max_length"],
            packing=settings["packing"], shuffle_dataset=False,
        ),
    )  # fmt: skip
    collate = trainer.data_collator

    def counted(batch: list[dict[str, Any]]) -> Any:
        found = collate(batch)
        labels = found["labels"]
        seen.append(int((labels[:, 1:] != -100).sum()))
        return found

    trainer.data_collator = counted
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "losses": {role: losses},
        "cpu_s": watch.cpu,
        "wall_s": watch.wall,
        "supervised_tokens": sum(seen[settings["accumulate"] :]),
    }


def run_profile(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Where the time of a step goes: shares of it, solo and fused, and the rate of products."""
    solo = {**settings, "roles": settings["roles"][-1:]}
    return {"solo": _profiled(folder, solo), "fused": _profiled(folder, settings)} | {
        "product_gflops_alone": _rate_of_products()
    }


def _profiled(folder: Path, settings: dict[str, Any]) -> dict[str, float]:
    from torch.profiler import ProfilerActivity, profile

    session = session_of(folder, settings)
    session.train_step()
    # The profiler costs time itself; what lies between operations is told from a step without it.
    started = time.process_time()
    session.train_step()
    plain_s = time.process_time() - started
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as found:
        session.train_step()
    seconds = {"products": 0.0, "attention": 0.0, "others": 0.0}
    flops = 0.0
    for event in found.key_averages():
        kind = "others"
        if event.key in PRODUCTS:
            kind = "products"
        elif event.key.startswith(ATTENTION):
            kind = "attention"
        seconds[kind] += event.self_cpu_time_total / 1e6
        flops += event.flops if kind == "products" else 0
    # Shares of wall time: the profiler knows no other. A busy machine stretches all alike.
    total = sum(seconds.values())
    return {
        "step_s": round(plain_s, 3),
        **{f"{kind}_share": round(spent / total, 3) for kind, spent in seconds.items()},
        "product_gflops": round(flops / (seconds["products"] / total * plain_s) / 1e9, 1),
    }


def _rate_of_products() -> float:
    """What one thread reaches in a product of the model's shapes alone, in 1e9 operations/s."""
    import torch

    rows, wide = torch.randn(1024, 256), torch.randn(256, 688)
    started, count = time.process_time(), 0
    while time.process_time() - started < 1:
        rows @ wide
        count += 1
    spent = time.process_time() - started
    return round(2 * 1024 * 256 * 688 * count / spent / 1e9, 1)


def main() -> None:
    """Run what is asked for, and print the result."""
    import torch

    settings = json.loads(sys.argv[2])
    torch.set_num_threads(settings.get("num_threads", 1))
    run = {"lorid": run_lorid, "trl": run_trl, "profile": run_profile}[sys.argv[1]]
    result = run(Path(settings["folder"]), settings)
    result["process_wall_s"] = time.monotonic() - STARTED
    result["process_cpu_s"] = time.process_time()
    print("RESULT " + json.dumps(result), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

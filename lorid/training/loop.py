"""The training step of one role, and its state.

    session = TrainingSession(config, role=role, examples=examples, tokenizer=tok, device=device)
    while session.step < session.num_steps:
        metrics = session.train_step()

The loss of a step is the sum over its supervised tokens divided by their number, over all of its
micro-batches: not a mean of means. Logits are computed only where there is a label. A session knows
nothing about Ray or files beyond the folder that it is told to save to.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase, get_cosine_schedule_with_warmup

from lorid.config import RunConfig
from lorid.errors import TrainingError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.roles import Role
from lorid.method.templates import IGNORED_LABEL
from lorid.training.adapters import load_base, new_adapter, save_adapter
from lorid.training.batches import (
    Batch,
    Example,
    collate,
    num_steps,
    padding_id,
    step_indices,
)

STATE_FILE = "state.pt"
METRICS_FILE = "metrics.jsonl"
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one optimizer step did; rates are real tokens (no padding) a second."""

    role: str
    step: int
    num_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    supervised_tokens: int
    seconds: float


class TrainingSession:
    """One role's model, optimizer and position."""

    def __init__(
        self,
        config: RunConfig,
        *,
        role: Role,
        examples: Sequence[Example],
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
    ) -> None:
        training = config.training
        self.config, self.role, self.examples, self.device = config, role, examples, device
        self.pad_id = padding_id(tokenizer)
        self.model = new_adapter(load_base(config.student), training, seed=config.seed).to(device)
        self.model.train()
        self.weights = [p for p in self.model.parameters() if p.requires_grad]
        self.num_steps = num_steps(
            num_examples=len(examples),
            num_epochs=training.epochs_of(role),
            sequences_per_step=training.sequences_per_step,
        )
        self.optimizer = torch.optim.AdamW(
            self.weights, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.scheduler = get_cosine_schedule_with_warmup(
            self.optimizer, math.ceil(training.warmup_ratio * self.num_steps), self.num_steps
        )
        self.step = 0
        self.metrics: list[StepMetrics] = []

    def train_step(self) -> StepMetrics:
        """One optimizer step over `sequences_per_step` sequences.

        Raises:
            TrainingError: the loss or the gradient is not finite; the weights are as before.
        """
        started = time.monotonic()
        training = self.config.training
        chosen = self._step_examples()
        num_supervised = sum(_num_supervised(example) for example in chosen)
        loss = 0.0
        for start in range(0, len(chosen), training.micro_batch_sequences):
            micro_batch = chosen[start : start + training.micro_batch_sequences]
            batch = collate(micro_batch, pad_id=self.pad_id, device=self.device)
            part = self._summed_loss(batch) / num_supervised
            part.backward()
            loss += part.item()
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.weights, training.max_grad_norm))
        learning_rate = float(self.scheduler.get_last_lr()[0])
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            raise TrainingError(
                f"{self.role}: loss {loss} and gradient norm {grad_norm} at step {self.step + 1}; "
                "lower training.learning_rate"
            )
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seconds = time.monotonic() - started
        num_tokens = sum(len(example.input_ids) for example in chosen)
        metrics = StepMetrics(
            role=str(self.role),
            step=self.step,
            num_steps=self.num_steps,
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens_per_s=num_tokens / seconds,
            supervised_tokens=num_supervised,
            seconds=seconds,
        )
        self.metrics.append(metrics)
        return metrics

    def save(self, folder: Path) -> None:
        """Write the adapter, the metrics so far and everything that a resume needs."""
        save_adapter(
            self.model, folder / ADAPTER_FOLDER, role=self.role, student=self.config.student
        )
        write_jsonl(folder / METRICS_FILE, (asdict(metrics) for metrics in self.metrics))
        state = {
            "step": self.step,
            "weights": [weight.detach().cpu() for weight in self.weights],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        torch.save(state, folder / STATE_FILE)

    def restore(self, folder: Path) -> None:
        """Go on exactly where `save` left off; the file is lorid's own, read without pickle."""
        state = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for weight, saved in zip(self.weights, state["weights"], strict=True):
                weight.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.step = int(state["step"])
        self.metrics = [StepMetrics(**row) for _, row in read_jsonl(folder / METRICS_FILE)]

    def _step_examples(self) -> list[Example]:
        indices = step_indices(
            self.step,
            num_examples=len(self.examples),
            sequences_per_step=self.config.training.sequences_per_step,
            seed=self.config.seed,
        )
        # Neighbours of like length pad least; the step's gradient does not depend on this order.
        return sorted((self.examples[index] for index in indices), key=lambda e: len(e.input_ids))

    def _summed_loss(self, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over the supervised tokens, in float32."""
        causal_lm: Any = self.model.get_base_model()
        hidden = causal_lm.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state[:, :-1]
        targets = batch.labels[:, 1:]
        is_supervised = targets != IGNORED_LABEL
        logits = causal_lm.lm_head(hidden[is_supervised])
        return functional.cross_entropy(logits.float(), targets[is_supervised], reduction="sum")


def _num_supervised(example: Example) -> int:
    return sum(label != IGNORED_LABEL for label in example.labels)

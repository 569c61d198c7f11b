"""What one role has for itself: examples and their order, optimizer, schedule, position, metrics.

    track = RoleTrack(role, examples=examples, weights=weights, training=training, seed=1)
    placed = track.upcoming()          # the sequences of the next step
    ... backward ...
    track.finish_step(loss=0.7, seconds=0.2)

A session has one track, or several over one base; a track does not know of the others.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import get_cosine_schedule_with_warmup

from lorid.config import TrainingConfig
from lorid.errors import TrainingError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.roles import Role
from lorid.training.batches import Example, Placed, hold_out
from lorid.training.memory import peak_memory_bytes
from lorid.training.steps import plan_steps

STATE_FILE = "state.pt"
METRICS_FILE = "metrics.jsonl"
NUM_NAMED_PROBLEMS = 16


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one optimizer step did; in a fused run `seconds` is shared by the roles in it.

    `memory_bytes` is the most that the worker held so far: of its GPU, or else of the process.
    """

    role: str
    step: int
    num_steps: int
    loss: float
    learning_rate: float
    grad_norm: float
    num_tokens: int
    supervised_tokens: int
    tokens_per_s: float
    supervised_tokens_per_s: float
    seconds: float
    memory_bytes: int = 0
    validation_loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class Best:
    """The weights with the lowest validation loss so far."""

    loss: float
    step: int
    weights: list[torch.Tensor]


class RoleTrack:
    """One role's weights, optimizer and position."""

    def __init__(
        self,
        role: Role,
        *,
        examples: Sequence[Example],
        weights: Sequence[torch.nn.Parameter],
        training: TrainingConfig,
        seed: int,
    ) -> None:
        self.role, self.weights = role, list(weights)
        self.examples, self.held_out = hold_out(
            examples, fraction=training.validation_fraction, seed=seed
        )
        self.seed, self.max_grad_norm = seed, training.max_grad_norm
        self.validate_every_steps = training.validate_every_steps
        self.plan = plan_steps(
            [example.num_tokens for example in self.examples],
            num_epochs=training.epochs_of(role),
            sequences_per_step=training.sequences_per_step,
            tokens_per_step=training.tokens_per_step,
            seed=seed,
        )
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.scheduler = get_cosine_schedule_with_warmup(
            self.optimizer, math.ceil(training.warmup_ratio * self.num_steps), self.num_steps
        )
        self.step = 0
        self.metrics: list[StepMetrics] = []
        self.failure: TrainingError | None = None
        self.best: Best | None = None

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return len(self.plan)

    @property
    def is_active(self) -> bool:
        """Whether there is a step left to take."""
        return self.failure is None and self.step < self.num_steps

    def upcoming(self) -> list[Placed]:
        """The sequences of the next step, in order."""
        return [
            Placed(
                role=self.role,
                key=f"{self.seed}/{self.role}/{self.step}/{place}",
                example=self.examples[index],
            )
            for place, index in enumerate(self.plan[self.step])
        ]

    def gradients(self) -> list[torch.Tensor]:
        """The gradient of every weight; zeros where this process's sequences gave none."""
        for weight in self.weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        return [weight.grad for weight in self.weights if weight.grad is not None]

    def finish_step(self, *, loss: float, guess: float) -> float:
        """Clip and apply the gradient that has been gathered; returns its norm before clipping.

        Raises:
            TrainingError: loss or gradient is not finite, or the loss is more than twice what it
                began with and than `guess`, the loss of guessing; the weights stay as they were,
                and the track takes no more steps.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights, self.max_grad_norm))
        began = self.metrics[0].loss if self.metrics else loss
        is_finite = math.isfinite(loss) and math.isfinite(norm)
        if not is_finite or loss > 2 * max(began, guess):
            what = "exploded" if is_finite else "is not finite"
            self.failure = TrainingError(self._why_stopped(what, loss=loss, norm=norm, began=began))
            self.optimizer.zero_grad(set_to_none=True)
            raise self.failure
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return norm

    @property
    def is_validation_due(self) -> bool:
        """Whether the held-out loss is wanted after the step that was just finished."""
        is_turn = self.step % self.validate_every_steps == 0 or self.step == self.num_steps
        return bool(self.held_out) and self.step > 0 and is_turn

    def note_validation(self, loss: float) -> None:
        """Keep the weights if there were none as good before."""
        if self.best is None or loss < self.best.loss:
            copies = [weight.detach().cpu().clone() for weight in self.weights]
            self.best = Best(loss=loss, step=self.step, weights=copies)

    def record(
        self,
        *,
        loss: float,
        norm: float,
        rate: float,
        seconds: float,
        validation_loss: float | None = None,
    ) -> StepMetrics:
        """Note what the step that was just finished did."""
        chosen = [self.examples[index] for index in self.plan[self.step - 1]]
        num_tokens = sum(example.num_tokens for example in chosen)
        num_supervised = sum(example.num_supervised for example in chosen)
        metrics = StepMetrics(
            role=str(self.role),
            step=self.step,
            num_steps=self.num_steps,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            num_tokens=num_tokens,
            supervised_tokens=num_supervised,
            tokens_per_s=num_tokens / seconds,
            supervised_tokens_per_s=num_supervised / seconds,
            seconds=seconds,
            memory_bytes=peak_memory_bytes(self.weights[0].device),
            validation_loss=validation_loss,
        )
        self.metrics.append(metrics)
        return metrics

    def save(self, folder: Path) -> None:
        """Write metrics and everything but the adapter's own files that a resume needs."""
        write_jsonl(folder / METRICS_FILE, (asdict(metrics) for metrics in self.metrics))
        state = {
            "step": self.step,
            "weights": [weight.detach().cpu() for weight in self.weights],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "best": None if self.best is None else vars(self.best),
        }
        torch.save(state, folder / STATE_FILE)

    def restore(self, folder: Path) -> None:
        """Go on exactly where `save` left off; the file is lorid's own, read without pickle."""
        state: dict[str, Any] = torch.load(
            folder / STATE_FILE, map_location="cpu", weights_only=True
        )
        with torch.no_grad():
            for weight, saved in zip(self.weights, state["weights"], strict=True):
                weight.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step = int(state["step"])
        self.best = None if state["best"] is None else Best(**state["best"])
        self.metrics = [StepMetrics(**row) for _, row in read_jsonl(folder / METRICS_FILE)]

    def _why_stopped(self, what: str, *, loss: float, norm: float, began: float) -> str:
        ids = [self.examples[index].problem_id for index in self.plan[self.step]]
        named = ", ".join(ids[:NUM_NAMED_PROBLEMS])
        if len(ids) > NUM_NAMED_PROBLEMS:
            named += f" and {len(ids) - NUM_NAMED_PROBLEMS} more"
        return (
            f"{self.role}: training {what} at step {self.step + 1}: loss {loss:.4g} (it began with "
            f"{began:.4g}), gradient norm {norm:.4g}, problems {named}; "
            "lower training.learning_rate or look at these problems"
        )

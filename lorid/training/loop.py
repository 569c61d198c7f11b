"""The training step of one role, or of several over one base, and its state.

    session = TrainingSession(config, examples={role: examples}, device=device)
    while session.is_active:
        for metrics in session.train_step(): ...

A step flattens the sequences of every role in it into micro-batches without padding. A role's
loss is the sum over the supervised tokens of its whole step divided by their number, not a mean of
means. Logits are computed only where there is a label. A role alone and a role beside others
(fused) go through the same code: tokens of different sequences never meet, each role's go through
its own adapter, and dropout is drawn per sequence. With several ranks each computes its share of
the step's sequences, and all take the same optimizer step. A session knows nothing about Ray, or
about files beyond the folder that it is told to save to.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from lorid.config import RunConfig
from lorid.errors import ConfigError, TrainingError
from lorid.method.roles import Role
from lorid.training.adapters import load_base, new_adapters, save_adapter, weights_of
from lorid.training.attention import PACKED_ATTENTION, use_packed_attention
from lorid.training.batches import Example, FlatBatch, Placed, flatten, micro_batches
from lorid.training.memory import fits_in_memory
from lorid.training.ranks import Ranks, shares
from lorid.training.routing import Route, route_adapters
from lorid.training.track import RoleTrack, StepMetrics

ADAPTER_FOLDER = "adapter"
BEST_FOLDER = "best-adapter"
RANDOM_FILE = "random.pt"


class TrainingSession:
    """One base, and a track for each role that trains on it."""

    def __init__(
        self,
        config: RunConfig,
        *,
        examples: Mapping[Role, Sequence[Example]],
        device: torch.device,
        base: PreTrainedModel | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        training = config.training
        self.config, self.device, self.ranks = config, device, ranks or Ranks(device=device)
        # How many workers took part, one number for each time that it changed.
        self.num_workers = [self.ranks.size]
        self.base = base or load_base(config.student, device=device)
        use_packed_attention(self.base)
        self.model = new_adapters(self.base, training, roles=list(examples), seed=config.seed)
        self.model.to(device)
        self.model.train()
        self.route = Route()
        num_unrouted = route_adapters(self.model, self.route, dropout=training.dropout)
        if num_unrouted and len(examples) > 1:
            raise ConfigError(
                f"training.mode: {num_unrouted} of the adapted layers are not plain linear layers "
                "and cannot be trained fused; set it to separate"
            )
        self.tracks = {
            role: RoleTrack(
                role,
                examples=found,
                weights=weights_of(self.model, role),
                training=training,
                seed=config.seed,
            )
            for role, found in examples.items()
        }
        if self.ranks.size > 1:
            # Only a base's own dropout draws from it, and on other sequences on each rank.
            torch.manual_seed(config.seed + self.ranks.rank)
        self.is_checkpointing = self._chooses_checkpointing()
        if self.is_checkpointing:
            self.base.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def is_active(self) -> bool:
        """Whether any role has a step left."""
        return any(track.is_active for track in self.tracks.values())

    @property
    def step(self) -> int:
        """The step of the furthest role that is still at work, or was last."""
        tracks = list(self.tracks.values())
        return max(track.step for track in ([t for t in tracks if t.is_active] or tracks))

    def train_step(self) -> list[StepMetrics]:
        """One optimizer step of every role that is not finished.

        Raises:
            TrainingError: the only role cannot go on: loss or gradient not finite, or exploded. One
                of several is left out from then on instead, with the reason in its `failure`.
        """
        started = time.monotonic()
        active = [track for track in self.tracks.values() if track.is_active]
        losses = self._backward(active)
        rates = [float(track.scheduler.get_last_lr()[0]) for track in active]
        guess = math.log(self.base.config.vocab_size)
        norms: dict[Role, float] = {}
        for track, loss in zip(active, losses, strict=True):
            try:
                norms[track.role] = track.finish_step(loss=loss, guess=guess)
            except TrainingError:
                if len(self.tracks) == 1:
                    raise
        seconds = time.monotonic() - started
        held_out = {track.role: self._validate(track) for track in active if track.role in norms}
        return [
            track.record(
                loss=loss,
                norm=norms[track.role],
                rate=rate,
                seconds=seconds,
                validation_loss=held_out[track.role],
            )
            for track, loss, rate in zip(active, losses, rates, strict=True)
            if track.role in norms
        ]

    def save(self, folder: Path) -> None:
        """Write a folder for each role: adapter, metrics so far, all that a resume needs.

        Every rank calls it; the first one writes.
        """
        # lorid's own dropout needs no state; a base's own, and DoRA's, come from here.
        state = {"cpu": self.ranks.gather(torch.get_rng_state())}
        if self.device.type == "cuda":
            state["cuda"] = self.ranks.gather(torch.cuda.get_rng_state(self.device))
        if self.ranks.rank:
            return
        for role, track in self.tracks.items():
            self._save_adapter(track, folder / role / ADAPTER_FOLDER)
            if track.best is not None:
                last = [weight.detach().clone() for weight in track.weights]
                _copy_into(track.weights, track.best.weights)
                self._save_adapter(track, folder / role / BEST_FOLDER)
                _copy_into(track.weights, last)
            track.save(folder / role)
        torch.save({**state, "num_workers": self.num_workers}, folder / RANDOM_FILE)

    def restore(self, folder: Path) -> None:
        """Go on exactly where `save` left off; with other ranks, but for the order of sums."""
        for role, track in self.tracks.items():
            track.restore(folder / role)
        state = torch.load(folder / RANDOM_FILE, map_location="cpu", weights_only=True)
        self.num_workers = list(state["num_workers"])
        if self.num_workers[-1] != self.ranks.size:
            self.num_workers.append(self.ranks.size)
        if self.ranks.rank < len(state["cpu"]):
            torch.set_rng_state(state["cpu"][self.ranks.rank])
            if "cuda" in state and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda"][self.ranks.rank], self.device)

    def _save_adapter(self, track: RoleTrack, folder: Path) -> None:
        save_adapter(self.model, folder, role=track.role, student=self.config.student)

    def _validate(self, track: RoleTrack) -> float | None:
        """The loss on what was held out, if it is due: without dropout, nothing learnt."""
        if not track.is_validation_due:
            return None
        training = self.config.training
        placed = [Placed(role=track.role, key="", example=one) for one in track.held_out]
        total = torch.zeros(1, device=self.device)
        self.model.eval()
        with torch.no_grad():
            for group in micro_batches(self._share(placed), max_tokens=training.micro_batch_tokens):
                batch = flatten(group, device=self.device)
                total += self._token_losses(batch).sum()
        self.route.clear()
        self.model.train()
        self.ranks.sum_([total])
        loss = float(total) / max(1, sum(one.num_supervised for one in track.held_out))
        track.note_validation(loss)
        return loss

    def _backward(self, active: Sequence[RoleTrack]) -> list[float]:
        """Gather the gradients of the active roles' next steps; returns their losses.

        Each rank goes over its share of the sequences; sums over all ranks come back.
        """
        training = self.config.training
        placed = [one for track in active for one in track.upcoming()]
        number = {track.role: index for index, track in enumerate(active)}
        num_supervised = [0] * len(active)
        for one in placed:
            num_supervised[number[one.role]] += one.example.num_supervised
        shares = torch.tensor([1 / max(1, num) for num in num_supervised], device=self.device)
        totals = torch.zeros(len(active), device=self.device)
        for group in micro_batches(
            self._share(placed),
            max_tokens=training.micro_batch_tokens,
            max_sequences=training.micro_batch_sequences,
        ):
            batch = flatten(group, device=self.device)
            if not batch.targets.numel():
                continue
            roles = torch.tensor([number[one.role] for one in group]).repeat_interleave(
                torch.tensor(batch.num_targets)
            )
            roles = roles.to(self.device)
            parts = self._token_losses(batch) * shares[roles]
            parts.sum().backward()
            totals.index_add_(0, roles, parts.detach())
        self.route.clear()
        for track, num in zip(active, num_supervised, strict=True):
            # A step without a supervised token has no gradient, not one of zero: nothing to add.
            if num and self.ranks.size > 1:
                self.ranks.sum_(track.gradients())
        self.ranks.sum_([totals])
        return [float(total) for total in totals.tolist()]

    def _share(self, placed: Sequence[Placed]) -> list[Placed]:
        """What this rank computes of them."""
        lengths = [one.example.num_tokens for one in placed]
        return [placed[at] for at in shares(lengths, num=self.ranks.size)[self.ranks.rank]]

    def _token_losses(self, batch: FlatBatch) -> torch.Tensor:
        """Cross-entropy of each supervised token, in float32."""
        self.route.set(batch.stretches)
        lengths = {}
        if self.base.config._attn_implementation == PACKED_ATTENTION:
            lengths = {
                "cu_seq_lens_q": batch.boundaries,
                "cu_seq_lens_k": batch.boundaries,
                "max_length_q": batch.longest,
                "max_length_k": batch.longest,
            }
        logits = self.base(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            logits_to_keep=batch.supervised,
            **lengths,
        ).logits[0]
        return functional.cross_entropy(logits.float(), batch.targets, reduction="none")

    def _chooses_checkpointing(self) -> bool:
        training = self.config.training
        if training.gradient_checkpointing != "auto":
            return training.gradient_checkpointing == "on"
        longest = sum(
            max(sum(track.examples[i].num_tokens for i in chosen) for chosen in track.plan)
            for track in self.tracks.values()
        )
        num_tokens = min(longest, max(training.micro_batch_tokens, training.max_sequence_tokens))
        return not fits_in_memory(
            self.base.config, training, num_tokens=num_tokens, device=self.device
        )


def _copy_into(weights: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)

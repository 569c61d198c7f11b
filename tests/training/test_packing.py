"""Flattened batches compute what each sequence alone computes, and sequences never meet."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    KINDS,
    VOCAB_SIZE,
    awaken,
    gradients,
    random_examples,
    tiny_base,
    tiny_config,
    tiny_session,
)
from torch.nn import functional

from lorid.method.roles import Role
from lorid.training.batches import flatten
from lorid.training.loop import TrainingSession
from lorid.training.memory import activation_bytes

LENGTHS = [5, 30, 17, 44, 2, 9]


def plain_step(session) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of the same step by PEFT and transformers, a sequence at a time."""
    session.base.set_attn_implementation("eager")
    (track,) = session.tracks.values()
    chosen = [placed.example for placed in track.upcoming()]
    total = torch.zeros(())
    for example in chosen:
        logits = session.model(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        targets = torch.tensor(example.labels[1:])
        total = total + functional.cross_entropy(logits, targets, reduction="sum")
    loss = total / sum(example.num_supervised for example in chosen)
    loss.backward()
    return loss.item(), [weight.grad for weight in track.weights]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6)
@given(lengths=st.lists(st.integers(2, 45), min_size=1, max_size=8))
def test_packed_equals_unpacked_in_loss_and_every_gradient(kind, lengths):
    config = tiny_config(sequences_per_step=len(lengths))
    examples = random_examples(lengths)
    packed, plain = (tiny_session(config, examples, kind=kind) for _ in range(2))
    awaken(packed)
    awaken(plain)
    loss, expected = plain_step(plain)
    (track,) = packed.tracks.values()
    (found,) = packed._backward([track])
    assert found == pytest.approx(loss, abs=1e-5)
    for weight, other in zip(track.weights, expected, strict=True):
        assert torch.allclose(weight.grad, other, atol=1e-5, rtol=0)
    assert max(other.abs().max() for other in expected) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batch_sequences": 1},
        {"micro_batch_tokens": 50},
        {"gradient_checkpointing": "on"},
        {"gradient_checkpointing": "on", "micro_batch_tokens": 50},
    ],
)
def test_with_dropout_a_step_is_the_same_however_it_is_computed(changes):
    examples = random_examples(LENGTHS)
    whole = tiny_session(tiny_config(dropout=0.3), examples)
    other = tiny_session(tiny_config(dropout=0.3, **changes), examples)
    none = tiny_session(tiny_config(), examples)
    for session in (whole, other, none):
        awaken(session)
    expected, found, without = gradients(whole), gradients(other), gradients(none)
    assert all(
        torch.allclose(a, b, atol=1e-5, rtol=0) for a, b in zip(expected, found, strict=True)
    )
    assert not all(
        torch.allclose(a, b, atol=1e-3, rtol=0) for a, b in zip(expected, without, strict=True)
    )


def test_dropout_keeps_its_share_and_differs_by_layer_sequence_and_step():
    session = tiny_session(tiny_config(dropout=0.25, num_epochs=2), random_examples([40] * 6))
    (track,) = session.tracks.values()
    layers = [m.forward for m in session.model.modules() if hasattr(m, "lora_A")]

    def masks() -> list[torch.Tensor]:
        batch = flatten(track.upcoming(), device=torch.device("cpu"))
        session.route.set(batch.stretches)
        return [layer._mask(torch.zeros(240, 32)) for layer in layers]

    first, again = masks(), masks()
    session.train_step()
    later = masks()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    kept = torch.cat([mask.float().flatten() for mask in first])
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    parts = [part for mask in [*first, *later] for part in mask.split(40)]
    distinct = {tuple(part.flatten().tolist()) for part in parts}
    assert len(distinct) == len(parts) == 2 * len(layers) * 6


@pytest.mark.parametrize("attention", ["lorid_packed", "sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_does_not_see_its_neighbours(kind, attention):
    session = tiny_session(tiny_config(), random_examples(LENGTHS), kind=kind)
    awaken(session)
    session.base.set_attn_implementation(attention)
    (track,) = session.tracks.values()
    batch = flatten(track.upcoming(), device=torch.device("cpu"))
    with torch.no_grad():
        before = session._token_losses(batch)
        changed = batch.stretches[2]
        batch.input_ids[0, changed.start : changed.end] = 3
        after = session._token_losses(batch)
    mine = torch.arange(len(batch.stretches)).repeat_interleave(torch.tensor(batch.num_targets))
    assert torch.equal(before[mine != 2], after[mine != 2])
    assert not torch.allclose(before[mine == 2], after[mine == 2])


@pytest.mark.parametrize("kind", KINDS)
def test_own_attention_equals_the_one_of_transformers(kind):
    session = tiny_session(tiny_config(), random_examples(LENGTHS), kind=kind)
    awaken(session)
    found = {}
    for attention in ("lorid_packed", "sdpa", "eager"):
        session.base.set_attn_implementation(attention)
        found[attention] = gradients(session)
    for other in ("sdpa", "eager"):
        for one, two in zip(found["lorid_packed"], found[other], strict=True):
            assert torch.allclose(one, two, atol=1e-5, rtol=0)


def test_rslora_scales_as_peft_does():
    examples = random_examples(LENGTHS)
    config = tiny_config(use_rslora=True)
    routed, plain = (tiny_session(config, examples) for _ in range(2))
    awaken(routed)
    awaken(plain)
    _, expected = plain_step(plain)
    for one, two in zip(gradients(routed), expected, strict=True):
        assert torch.allclose(one, two, atol=1e-5, rtol=0)


def test_dora_learns_through_pefts_own_layers():
    examples = random_examples(LENGTHS)
    config = tiny_config(use_dora=True)
    packed, plain = (tiny_session(config, examples) for _ in range(2))
    loss, expected = plain_step(plain)
    (track,) = packed.tracks.values()
    (found,) = packed._backward([track])
    assert found == pytest.approx(loss, abs=1e-5)
    assert len(track.weights) == 3 * 4  # A, B and the magnitude of q and v in two layers
    for weight, other in zip(track.weights, expected, strict=True):
        assert torch.allclose(weight.grad, other, atol=1e-5, rtol=0)


ALL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ALL_TARGETS])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_estimate_is_near_what_autograd_keeps(kind, dropout, targets):
    config = tiny_config(dropout=dropout, target_modules=targets)
    session = tiny_session(config, random_examples([40] * 6), kind=kind)
    (track,) = session.tracks.values()
    batch = flatten(track.upcoming(), device=torch.device("cpu"))
    weights = {weight.untyped_storage().data_ptr() for weight in session.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        session._token_losses(batch)
    num_tokens = batch.input_ids.numel()
    # The tiny vocabulary's logits are as large as the layers: not part of the estimate.
    logits = 3 * 4 * VOCAB_SIZE * batch.targets.numel()
    found = sum(storage.nbytes() for storage in kept.values()) - logits
    estimate = activation_bytes(session.base.config, config.training, num_tokens=num_tokens)
    assert 0.8 < estimate / found < 1.4


def test_a_bfloat16_base_trains_float32_adapters():
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        session = TrainingSession(
            tiny_config(dropout=0.1, num_epochs=4),
            examples={Role.DEEP_REASONER: random_examples(LENGTHS)},
            device=torch.device("cpu"),
            base=tiny_base().to(dtype),
        )
        (track,) = session.tracks.values()
        assert {weight.dtype for weight in track.weights} == {torch.float32}
        while session.is_active:
            session.train_step()
        losses[dtype] = [metrics.loss for metrics in track.metrics]
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], abs=0.05)
    assert losses[torch.bfloat16][-1] < losses[torch.bfloat16][0]

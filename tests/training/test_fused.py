"""Three adapters in one pass: each is what it would be alone, and none touches another."""

import pytest
import torch
from tiny import awaken, gradients, random_examples, tiny_config, tiny_session

from lorid.errors import TrainingError
from lorid.method.roles import Role
from lorid.training.batches import Example

IR, KG, DR = Role


def data() -> dict[Role, list[Example]]:
    """Different amounts: the roles finish at different steps."""
    return {
        IR: random_examples([11, 30, 7, 25, 16, 9] * 2, seed=1),
        KG: random_examples([14, 6, 21, 12, 19, 8], seed=2),
        DR: random_examples([28, 33, 17, 24, 31, 22] * 3, seed=3),
    }


def trained(session) -> dict[Role, list[torch.Tensor]]:
    while session.is_active:
        session.train_step()
    return {
        role: [weight.detach().clone() for weight in track.weights]
        for role, track in session.tracks.items()
    }


@pytest.mark.parametrize("kind", ["qwen2", "llama", "mistral"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch_tokens", [8192, 70])
def test_each_adapter_equals_its_solo_run(kind, dropout, micro_batch_tokens):
    config = tiny_config(dropout=dropout, micro_batch_tokens=micro_batch_tokens, learning_rate=1e-3)
    fused = tiny_session(config, data(), kind=kind)
    found = trained(fused)
    assert {role: track.step for role, track in fused.tracks.items()} == {IR: 2, KG: 1, DR: 3}
    for role, examples in data().items():
        solo = tiny_session(tiny_config(dropout=dropout, learning_rate=1e-3), examples, kind=kind,
                            role=role)  # fmt: skip
        for one, two in zip(trained(solo)[role], found[role], strict=True):
            assert torch.allclose(one, two, atol=1e-4, rtol=0)
        losses = [metrics.loss for metrics in solo.tracks[role].metrics]
        assert losses == pytest.approx([m.loss for m in fused.tracks[role].metrics], abs=1e-4)
    assert len({tuple(found[role][1].flatten().tolist()) for role in Role}) == 3


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("role", list(Role))
def test_other_data_for_one_role_leaves_the_others_bit_for_bit(role, dropout):
    config = tiny_config(dropout=dropout)
    changed = data()
    changed[role] = [
        Example(input_ids=[(i + 1) % 97 for i in one.input_ids], labels=one.labels)
        for one in changed[role]
    ]
    before = trained(tiny_session(config, data()))
    after = trained(tiny_session(config, changed))
    for other in Role:
        same = [torch.equal(a, b) for a, b in zip(before[other], after[other], strict=True)]
        assert all(same) is (other is not role)


@pytest.mark.parametrize("role", list(Role))
def test_a_role_that_fails_is_left_out_and_the_others_go_on(role):
    config = tiny_config()
    fused = tiny_session(config, data())
    while fused.tracks[role].step < fused.tracks[role].num_steps - 1:
        fused.train_step()
    with torch.no_grad():
        fused.tracks[role].weights[0].fill_(float("nan"))
    found = trained(fused)
    failure = fused.tracks[role].failure
    assert isinstance(failure, TrainingError)
    assert f"{role}: training is not finite" in str(failure)
    healthy = trained(tiny_session(config, data()))
    for other in set(Role) - {role}:
        assert fused.tracks[other].failure is None
        pairs = zip(found[other], healthy[other], strict=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_a_fused_gradient_has_no_part_of_another_role():
    fused = tiny_session(tiny_config(), data())
    awaken(fused)
    whole = gradients(fused)
    alone = []
    for role, examples in data().items():
        solo = tiny_session(tiny_config(), examples, role=role)
        awaken(solo)
        alone += gradients(solo)
    for one, two in zip(whole, alone, strict=True):
        assert torch.allclose(one, two, atol=1e-5, rtol=0)


def test_fused_sessions_resume_with_roles_at_different_steps(tmp_path):
    config = tiny_config(dropout=0.3)
    whole = trained(tiny_session(config, data()))
    first = tiny_session(config, data())
    first.train_step()
    first.train_step()
    first.save(tmp_path)
    torch.manual_seed(99)
    second = tiny_session(config, data())
    second.restore(tmp_path)
    assert {role: track.step for role, track in second.tracks.items()} == {IR: 2, KG: 1, DR: 2}
    found = trained(second)
    for role in Role:
        assert all(torch.equal(a, b) for a, b in zip(whole[role], found[role], strict=True))
        steps = [metrics.step for metrics in second.tracks[role].metrics]
        assert steps == list(range(1, second.tracks[role].num_steps + 1))

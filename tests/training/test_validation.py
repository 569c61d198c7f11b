"""The held-out loss: what it is over, that it changes nothing, and which weights are best."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import random_examples, tiny_config, tiny_session

from lorid.errors import TrainingError
from lorid.method.roles import Role
from lorid.training.batches import hold_out
from lorid.training.loop import ADAPTER_FOLDER, BEST_FOLDER

LENGTHS = [9, 12, 15, 7, 8, 10, 21, 14, 11, 13, 17, 6]
SPLIT = {"validation_fraction": 0.4, "validate_every_steps": 2, "sequences_per_step": 2}


def test_a_problem_is_on_one_side_for_every_role():
    one, other = (
        [{e.problem_id for e in side} for side in hold_out(examples, fraction=0.4, seed=1)]
        for examples in (random_examples(LENGTHS), random_examples(LENGTHS[::-1], seed=9))
    )
    assert one == other
    assert not one[0] & one[1]
    assert len(one[0] | one[1]) == len(LENGTHS)
    with pytest.raises(TrainingError, match="holds out 0 of 1"):
        hold_out(random_examples([9]), fraction=1e-9, seed=1)


def test_validation_changes_nothing_and_the_best_weights_are_kept(tmp_path):
    config = tiny_config(**SPLIT, dropout=0.3, num_epochs=8, learning_rate=3e-2)
    session = tiny_session(config, random_examples(LENGTHS))
    (track,) = session.tracks.values()
    while session.is_active:
        session.train_step()
    seen = {m.step: m.validation_loss for m in track.metrics if m.validation_loss is not None}
    assert sorted(seen) == sorted({*range(2, track.num_steps + 1, 2), track.num_steps})
    assert track.best is not None
    assert track.best.loss == min(seen.values())
    assert seen[track.best.step] == track.best.loss
    # Random data: held-out loss rises again, so best and last are not the same.
    assert track.best.step < track.num_steps

    plain = tiny_session(
        config.model_copy(
            update={"training": config.training.model_copy(update={"validate_every_steps": 10**6})}
        ),
        random_examples(LENGTHS),
    )
    while plain.is_active:
        plain.train_step()
    (other,) = plain.tracks.values()
    assert all(torch.equal(a, b) for a, b in zip(track.weights, other.weights, strict=True))

    session.save(tmp_path)
    again = tiny_session(config, random_examples(LENGTHS))
    again.restore(tmp_path)
    (restored,) = again.tracks.values()
    assert restored.best is not None
    assert (restored.best.loss, restored.best.step) == (track.best.loss, track.best.step)
    best, last = (
        load_file(tmp_path / Role.INTUITIVE_REASONER / name / "adapter_model.safetensors")
        for name in (BEST_FOLDER, ADAPTER_FOLDER)
    )
    assert sorted(best) == sorted(last)
    assert not all(torch.equal(best[name], last[name]) for name in best)
    saved = {tuple(weight.flatten().tolist()) for weight in best.values()}
    assert saved == {tuple(weight.flatten().tolist()) for weight in track.best.weights}

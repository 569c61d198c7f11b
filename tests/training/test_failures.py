"""A step that goes wrong stops before the weights change, and says where."""

import pytest
import torch
from tiny import random_examples, tiny_config, tiny_session

from lorid.errors import TrainingError
from lorid.training.batches import Example


def test_a_loss_that_is_not_finite_names_step_and_problems():
    session = tiny_session(tiny_config(num_epochs=2), random_examples([9, 12, 15, 7, 8, 10]))
    session.train_step()
    (track,) = session.tracks.values()
    with torch.no_grad():
        track.weights[1][0, 0] = float("nan")
    before = [weight.detach().clone() for weight in track.weights]
    with pytest.raises(TrainingError, match="is not finite at step 2") as caught:
        session.train_step()
    assert all(f"p{number}" in str(caught.value) for number in range(6))
    assert all(
        torch.equal(a, b.detach()) or a.isnan().any()
        for a, b in zip(before, track.weights, strict=True)
    )
    assert not session.is_active


def test_a_loss_twice_as_high_as_at_first_is_an_explosion():
    config = tiny_config(target_modules=("lm_head",), learning_rate=1e4, num_epochs=9)
    session = tiny_session(config, random_examples([9] * 6))
    session.train_step()
    with pytest.raises(TrainingError, match=r"exploded at step 2: loss .* \(it began with"):
        session.train_step()


def test_unsupervised_sequences_cost_nothing_and_break_nothing():
    silent = [Example(input_ids=[5, 6, 7], labels=[-100] * 3)]
    with_silent = tiny_session(tiny_config(), random_examples([9, 12, 15, 7, 8]) + silent)
    without = tiny_session(tiny_config(sequences_per_step=5), random_examples([9, 12, 15, 7, 8]))
    one, two = (session.train_step()[0] for session in (with_silent, without))
    assert one.loss == pytest.approx(two.loss, abs=1e-5)
    assert one.supervised_tokens == two.supervised_tokens

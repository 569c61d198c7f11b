"""Several workers of a role: the mathematics of one, and the same numbers on every rank."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_trainer import result_of, session_of

from lorid.training.ranks import Ranks, shares

SIZES = (2, 3)


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 6))
def test_shares_divide_a_step_evenly_and_completely(lengths, num):
    found = shares(lengths, num=num)
    assert sorted(index for share in found for index in share) == list(range(len(lengths)))
    assert all(share == sorted(share) for share in found)
    loads = [sum(lengths[index] for index in share) for share in found]
    assert max(loads) - min(loads) <= max(lengths, default=0)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank of each size found."""
    out, here = tmp_path_factory.mktemp("ranks"), Path(__file__).parent
    subprocess.run(
        [sys.executable, here / "rank_trainer.py", out, *map(str, SIZES)],
        check=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)])},
    )
    found = {
        size: [torch.load(out / f"rank-{size}-{rank}.pt") for rank in range(size)] for size in SIZES
    }
    return out, found


@pytest.mark.parametrize("case", ["fused", "narrow"])
def test_more_workers_compute_what_one_does(ranks, case):
    alone = result_of(case, Ranks())
    assert any(gradient.abs().max() > 1e-3 for gradient in alone["gradients"])
    for size in SIZES:
        found = ranks[1][size][0][case]
        for one, two in zip(alone["gradients"], found["gradients"], strict=True):
            assert torch.allclose(one, two, atol=1e-5, rtol=0)
        for role, rows in alone["metrics"].items():
            assert len(rows) == len(found["metrics"][role])
            for one, two in zip(rows, found["metrics"][role], strict=True):
                assert two == {
                    key: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
                    for key, value in one.items()
                }
            for one, two in zip(alone["weights"][role], found["weights"][role], strict=True):
                assert torch.allclose(one, two, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", ["fused", "narrow"])
@pytest.mark.parametrize("size", SIZES)
def test_ranks_stay_equal_to_one_another_bit_for_bit(ranks, case, size):
    first, *others = (found[case] for found in ranks[1][size])
    for other in others:
        assert other["metrics"] == first["metrics"]
        for role, weights in first["weights"].items():
            pairs = zip(weights, other["weights"][role], strict=True)
            assert all(torch.equal(one, two) for one, two in pairs)


def test_a_step_with_nothing_to_learn_changes_nothing_however_many_workers(ranks):
    # Adam's momentum would move the weights if such a step had a gradient of zero.
    losses = [row["loss"] for row in result_of("narrow", Ranks())["metrics"]["knowledge_generator"]]
    assert 0 in losses[1:]
    for size in SIZES:
        rows = ranks[1][size][0]["narrow"]["metrics"]["knowledge_generator"]
        assert [row["loss"] for row in rows] == pytest.approx(losses, abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_ranks_agree_in_votes_and_keep_their_own_random_state(ranks, size):
    found = ranks[1][size]
    assert all(one["votes"] == [[True, False], [False, True]] for one in found)
    drawn = [tuple(one["random"][0].tolist()) for one in found]
    assert len(set(drawn)) == size
    assert [tuple(one["random"][1].tolist()) for one in found] == drawn


def test_another_number_of_workers_goes_on_and_is_noted(ranks):
    session = session_of("narrow", Ranks())
    session.restore(ranks[0] / "saved-2")
    assert session.num_workers == [2, 1]
    session.restore(ranks[0] / "saved-3")
    assert session.num_workers == [3, 1]

"""The stopping rules of other papers, as benchmarks/serve_rules.py writes them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from lorid.method.stopping import chance_of_majority

FILE = Path(__file__).parents[2] / "benchmarks" / "serve_rules.py"


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serve_rules", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Dataclasses look their module up.
        patch.setitem(__import__("sys").modules, "serve_rules", module)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("answers", "window", "drawn"),
    [
        ([1, 1, 1, 2, 2, 2], 3, 3),
        # Unanimous across the border of two windows is not unanimous.
        ([2, 1, 1, 1, 3, 3], 3, 6),
        ([1, 2, 1, 1, 1, 5], 2, 4),
        ([None, None, 4, 4], 2, 4),
        # What is left over at the end is drawn and votes, but is no window.
        ([1, 2, 3, 3, 3], 2, 4),
        ([1, 2, 3, 4, 4], 2, 5),
    ],
)
def test_early_stopping_ends_with_the_first_unanimous_window(rules, answers, window, drawn):
    assert rules.drawn_by_esc(answers, window=window) == drawn


@pytest.mark.parametrize(
    ("answers", "drawn"),
    [
        # 1 - 1/2^5 is the first of its kind above 0.95.
        ([7] * 10, 4),
        ([None, 7, 7, 7, 7, 7], 5),
        ([1, 2] * 5, 10),
    ],
)
def test_adaptive_consistency_ends_when_the_leader_is_likely_the_majority(rules, answers, drawn):
    assert rules.drawn_by_adaptive(answers, chance=rules.beta_chance) == drawn


def test_the_integral_is_the_sum_that_lorid_takes(rules):
    for first in range(21):
        for second in range(first + 1):
            exact = chance_of_majority(first, second)
            assert rules.beta_chance((first, second)) == pytest.approx(exact, abs=1e-5)


def test_the_dirichlet_chances_of_equal_counts_share_what_there_is(rules):
    # One answer seen once, and one unseen: P(Gamma(2) > Gamma(1)) = 3/4.
    assert rules.dirichlet_chance((1,)) == pytest.approx(0.75, abs=1e-5)
    # Two equal leaders, and an unseen one that seldom wins.
    assert rules.dirichlet_chance((9, 9)) == pytest.approx(0.5, abs=1e-2)
    assert rules.dirichlet_chance((6, 1)) < rules.beta_chance((6, 1))


def test_the_most_frequent_answer_wins_and_the_first_of_equals(rules):
    assert rules.majority([None, 3, 2, 2, 3]) == 3
    assert rules.majority([None]) is None

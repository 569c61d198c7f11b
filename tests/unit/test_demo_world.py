"""The demo's problems are right, varied, and never shared between splits."""

import random
import re
from collections import Counter

import pytest

from lorid.demo.generator import (
    HELD_OUT_FAMILIES,
    ONE_STEP_FAMILIES,
    STEPS,
    TRAIN_FAMILIES,
    draw,
    draw_composed,
    generate,
    split_of,
)
from lorid.method.answers import extract_answer
from lorid.presets import DEMO_MODELS

SUM = re.compile(r"(\d+(?: [-+*/] \d+)+) = \$?(\d+)")


def value(expression: str) -> float:
    """The value of a chain of `a op b op c` from left to right, * and / before + and -."""
    first, *rest = expression.split(" ")
    total = float(first)
    for operator, number in zip(rest[::2], rest[1::2], strict=True):
        other = float(number)
        total = {
            "+": total + other,
            "-": total - other,
            "*": total * other,
            "/": total / other,
        }[operator]
    return total


@pytest.fixture(scope="module")
def splits():
    return {split: generate(split=split, count=400, seed=3) for split in ("train", "test")}


def test_there_are_enough_families_and_steps():
    assert len(TRAIN_FAMILIES) >= 24
    assert not set(TRAIN_FAMILIES) & set(HELD_OUT_FAMILIES)
    used = {step for chain in TRAIN_FAMILIES for step in chain}
    assert used == set(STEPS)
    assert {step for chain in HELD_OUT_FAMILIES for step in chain} <= used


def test_every_sum_of_a_rationale_is_right_and_the_last_one_is_the_answer(splits):
    for item in splits["train"] + splits["test"]:
        sums = SUM.findall(item.problem.rationale)
        assert len(sums) >= 2, item.problem.family
        for expression, result in sums:
            assert value(expression) == float(result), item.problem.rationale
        assert sums[-1][1] == item.problem.answer
        assert extract_answer(f"--> {item.problem.answer} END") == item.problem.answer


def test_every_number_of_a_rationale_is_given_or_was_computed(splits):
    words = {"half": "2", "third": "3", "quarter": "4", "fifth": "5", "twice": "2",
             "three": "3", "four": "4"}  # fmt: skip
    for item in splits["train"]:
        known = set(re.findall(r"\d+", item.problem.question)) | {"100"}
        known |= {
            words[word] for word in re.findall(r"\w+", item.problem.question) if word in words
        }
        for expression, result in SUM.findall(item.problem.rationale):
            assert set(re.findall(r"\d+", expression)) <= known, item.problem.rationale
            known.add(result)


def test_splits_share_families_but_no_question(splits):
    questions = {
        split: {item.problem.question for item in items} for split, items in splits.items()
    }
    assert len(questions["train"]) == len(questions["test"]) == 400
    assert not questions["train"] & questions["test"]
    families = {
        split: Counter(item.problem.family for item in items) for split, items in splits.items()
    }
    held_out = {" > ".join(chain) for chain in HELD_OUT_FAMILIES}
    assert not held_out & families["train"].keys()
    assert held_out <= families["test"].keys()
    assert len(families["train"].keys() & families["test"].keys()) >= 24
    assert 50 <= sum(families["test"][family] for family in held_out) <= 80


def test_pre_training_never_meets_a_held_out_family():
    rng = random.Random(5)
    held_out = {" > ".join(chain) for chain in HELD_OUT_FAMILIES}
    drawn = {draw_composed(rng).problem.family for _ in range(2000)}
    assert not held_out & drawn


def test_every_step_has_several_wordings():
    rng = random.Random(9)
    for chain in ONE_STEP_FAMILIES:
        shapes = set()
        for _ in range(60):
            problem = draw(rng, chain).problem
            shapes.add(re.sub(r"\d+|[A-Z][a-z]+", "*", problem.question.split(".")[-2]))
        assert len(shapes) >= 2, chain


def test_knowledge_is_general():
    for item in generate(split="train", count=100, seed=5):
        assert 1 <= len(item.knowledge) <= 6
        assert not set(re.findall(r"\d+", " ".join(item.knowledge))) - {"100"}


def test_the_same_seed_gives_the_same_problems_and_another_gives_others():
    again = generate(split="test", count=50, seed=1)
    assert again == generate(split="test", count=50, seed=1)
    assert again != generate(split="test", count=50, seed=2)
    assert all(split_of(item.problem.question) == "test" for item in again)
    with pytest.raises(ValueError, match="validation"):
        generate(split="validation", count=1, seed=1)


def test_the_shipped_models_are_small_safe_and_have_cards():
    files = [path for path in DEMO_MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12 * 1024**2
    suffixes = {path.suffix for path in files}
    assert suffixes <= {".safetensors", ".json", ".jinja", ".md"}
    for kind in ("base", "teacher"):
        card = (DEMO_MODELS / kind / "README.md").read_text()
        for line in ("made by", "seed", "data", "wall time", "loss", "licence"):
            assert f"| {line}" in card or f" {line}" in card

"""docs/sizing.md shows what benchmarks/sizing.py computes from its inputs now."""

import importlib.util
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sizing():
    spec = importlib.util.spec_from_file_location("sizing", ROOT / "benchmarks" / "sizing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def inputs():
    return yaml.safe_load((ROOT / "benchmarks" / "sizing.yaml").read_text())


def test_the_page_has_the_tables(sizing, inputs):
    assert sizing.tables(inputs) in (ROOT / "docs" / "sizing.md").read_text()


def test_shapes_have_the_parameters_that_their_makers_say(sizing, inputs):
    billions = {
        one["name"]: sizing.Model(**one).parameters / 1e9
        for one in [*inputs["models"]["students"], inputs["models"]["teacher"]]
    }
    said = {
        "Qwen2.5-1.5B": 1.54, "Mistral-7B": 7.24, "Llama-3.1-8B": 8.03,
        "Qwen2.5-Math-7B-Instruct": 7.62,
    }  # fmt: skip
    assert billions == pytest.approx(said, rel=0.005)


def test_a_price_or_a_rate_twice_as_high_counts_twice(sizing, inputs):
    student = sizing.Model(**inputs["models"]["students"][1])
    (before, _), rates = sizing.runs_of(student, inputs), sizing.rates_of(student, inputs)
    inputs["prices"] = {"head": 0.384, "gpu": 4.484, "spot_share": 0.5}
    inputs["efficiency"]["train"] *= 2
    (after, _), faster = sizing.runs_of(student, inputs), sizing.rates_of(student, inputs)
    assert faster.train == pytest.approx(2 * rates.train)
    assert after.gpu_hours < before.gpu_hours
    assert after.on_demand == pytest.approx(2 * (after.gpu_hours * 2.242 + after.hours * 0.192))

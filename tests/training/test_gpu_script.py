"""The GPU benchmark runs at toy size on a CPU, and compares what can be compared."""

import importlib.util
from pathlib import Path

import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_train.py"


def load_script():
    spec = importlib.util.spec_from_file_location("gpu_train", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_toy_run_measures_every_way_over_the_same_sequences():
    script = load_script()
    found = script.run(torch.device("cpu"), shapes=script.TOY, sizes=[256])
    solo, fused, peft = found["rows"]
    assert [row["way"] for row in found["rows"]] == list(script.WAYS)
    assert solo["tokens"] == peft["tokens"]
    # A fused step is every role's step: more sequences, not shorter ones.
    assert 2.9 < fused["tokens"] / solo["tokens"] < 3.1
    assert 0.95 < fused["mean_length"] / solo["mean_length"] < 1.05
    for row in found["rows"]:
        assert row["tokens_per_s"] > 0
        assert 0 < row["share_as_computed"] < row["share_of_matmul_rate"]


def test_the_shapes_are_the_published_models():
    script = load_script()
    large, small = script.SHAPES
    with torch.device("meta"):
        counts = [
            sum(weight.numel() for weight in script.LlamaForCausalLM(one.config()).parameters())
            for one in (large, small)
        ]
    assert counts == [6_738_415_616, 1_235_814_400]

"""Adapter folders that do not fit are refused from their files alone."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lorid.artifacts.adapters import check_adapter, engine_rank
from lorid.errors import AdapterMismatch

BASE = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
}
WIDTHS = {"q_proj": (8, 8), "v_proj": (8, 4)}


def write_adapter(folder, *, rank=2, hidden=8, layers=2, **config):
    weights = {}
    for layer in range(layers):
        for name, (_, num_out) in WIDTHS.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = np.zeros((rank, hidden), np.float32)
            weights[f"{prefix}.lora_B.weight"] = np.zeros((num_out, rank), np.float32)
    save_file(weights, str(folder / "adapter_model.safetensors"))
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 4,
        "target_modules": list(WIDTHS),
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_that_fits_says_its_rank(tmp_path):
    info = check_adapter(write_adapter(tmp_path), base=BASE)
    assert (info.rank, info.target_modules) == (2, ("q_proj", "v_proj"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"r": 4}, "shape"),
        ({"hidden": 16}, "another base"),
        ({"layers": 3}, "2 layers"),
        ({"target_modules": ["q_proj"]}, "names q_proj"),
        ({"peft_type": "IA3"}, "LoRA"),
        ({"rank": 513}, "512"),
        ({"r": "2"}, "LoRA"),
        ({"r": True}, "r: "),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"rank_pattern": {"q_proj": 1}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"target_modules": ["../../x"]}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, changes, named):
    with pytest.raises(AdapterMismatch, match=named) as caught:
        check_adapter(write_adapter(tmp_path, **changes), base=BASE)
    assert "\n" not in str(caught.value)


def test_a_base_of_another_shape_is_said_to_be_one(tmp_path):
    with pytest.raises(AdapterMismatch, match="hidden_size"):
        check_adapter(write_adapter(tmp_path), base={"text_config": BASE})


def test_pickled_weights_are_refused_before_anything_reads_them(tmp_path):
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(AdapterMismatch, match=r"no adapter_model\.safetensors"):
        check_adapter(tmp_path, base=BASE)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_files_are_refused(tmp_path, file):
    write_adapter(tmp_path)
    (tmp_path / file).write_bytes(b"{")
    with pytest.raises(AdapterMismatch, match=file):
        check_adapter(tmp_path, base=BASE)


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (2, 8), (32, 32), (33, 64), (512, 512)])
def test_the_engine_gets_the_smallest_rank_that_it_allows(tmp_path, rank, expected):
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    checked = [
        check_adapter(write_adapter(small, rank=1), base=BASE),
        check_adapter(write_adapter(large, rank=rank), base=BASE),
    ]
    assert engine_rank([info.rank for info in checked]) == expected


def test_without_the_base_an_adapter_must_agree_with_itself(tmp_path):
    assert check_adapter(write_adapter(tmp_path)).rank == 2
    weights = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    changes = {
        "the other layers": {name: np.zeros((2, 9), np.float32)},
        "no other half": {name: None},
        "belongs to no layer": {"model.embed.weight": np.zeros((2, 2), np.float32)},
        "I64": {name: np.zeros((2, 8), np.int64)},
    }
    for said, change in changes.items():
        spoilt = {key: value for key, value in (weights | change).items() if value is not None}
        save_file(spoilt, str(tmp_path / "adapter_model.safetensors"))
        with pytest.raises(AdapterMismatch, match=said):
            check_adapter(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_weights_that_are_no_finite_numbers_are_refused(tmp_path, value, kind):
    write_adapter(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    spoilt = {key: array.astype(kind) for key, array in weights.items()}
    save_file(spoilt, str(tmp_path / "adapter_model.safetensors"))
    assert check_adapter(tmp_path, base=BASE).rank == 2
    next(iter(spoilt.values()))[1, 1] = value
    save_file(spoilt, str(tmp_path / "adapter_model.safetensors"))
    with pytest.raises(AdapterMismatch, match="finite"):
        check_adapter(tmp_path, base=BASE)

"""The demo's models with a fourth head, all zeros: the same functions, for two workers.

    write_widened(tmp_path / "base", model="base")

Three heads cannot be shared by two workers of an engine.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lorid.presets import DEMO_MODELS

WIDTH, NARROW_WIDTH = 256, 192


def write_widened(folder: Path, *, model: str) -> Path:
    """The demo's model of that name with 64 more channels.

    A norm's mean is over more channels then, so its weights and epsilon shrink by the ratio.
    """
    shutil.copytree(DEMO_MODELS / model, folder)
    ratio = NARROW_WIDTH / WIDTH
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": WIDTH, "num_attention_heads": 4, "num_key_value_heads": 4}
    config |= {"rms_norm_eps": config["rms_norm_eps"] * ratio, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    for name, narrow in weights.items():
        shape = [WIDTH if size == NARROW_WIDTH else size for size in narrow.shape]
        wide = torch.zeros(shape)
        wide[tuple(slice(size) for size in narrow.shape)] = narrow.float()
        weights[name] = wide * ratio**0.5 if "norm" in name else wide
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder

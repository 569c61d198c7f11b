"""Small triples for tests: real PEFT files of zeros and noise, made without torch."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from lorid.artifacts.records import Record, publish
from lorid.artifacts.store import ArtifactStore
from lorid.artifacts.triples import MANIFEST_FILE, dump_manifest, make_manifest, role_folders
from lorid.config import EndpointConfig, ModelConfig
from lorid.method.roles import Role
from lorid.presets import demo

BASE = {
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
}
WIDTHS = {"q_proj": (8, 8), "v_proj": (8, 4)}


def write_base(folder: Path, **changes: int) -> Path:
    """A folder with a base's config and no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(BASE | changes))
    return folder


def write_adapter(folder: Path, *, rank: int = 2, seed: int = 0, **config: object) -> Path:
    """An adapter of `BASE`; `config` changes its adapter_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    weights = {}
    for layer in range(BASE["num_hidden_layers"]):
        for name, (num_in, num_out) in WIDTHS.items():
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{prefix}.lora_A.weight"] = noise.normal(size=(rank, num_in))
            weights[f"{prefix}.lora_B.weight"] = noise.normal(size=(num_out, rank))
    floats = {name: array.astype(np.float32) for name, array in weights.items()}
    save_file(floats, str(folder / "adapter_model.safetensors"))
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": list(WIDTHS)}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    return folder


def settings_on(base: Path | str, *, name: str = "demo", family: str = "tokenizer"):
    """The demo's endpoint settings on another base."""
    config: EndpointConfig = demo().endpoint()
    student = ModelConfig(path=str(base), family=family, dtype="float32")
    return config.model_copy(update={"name": name, "student": student})


def publish_triple(
    store: ArtifactStore,
    folder: Path,
    *,
    base: Path,
    seed: int = 0,
    rank: int = 2,
    name: str = "demo",
    family: str = "tokenizer",
    **sampling: object,
) -> Record:
    """A whole triple in a store; another seed makes another version."""
    config = settings_on(base, name=name, family=family)
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update=sampling)})
    folders = role_folders(folder)
    for number, role in enumerate(Role):
        named = {"base_model_name_or_path": str(base)}
        write_adapter(folders[role], rank=rank, seed=3 * seed + number, **named)
    manifest = make_manifest(config, folders=folders, addresses={})
    (folder / MANIFEST_FILE).write_bytes(dump_manifest(manifest))
    inputs = {"seed": seed, "rank": rank, "family": family, "base": manifest.base.identity}
    return publish(store, folder, kind="triple", name=name, inputs=inputs)

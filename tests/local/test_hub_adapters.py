"""Adapters by their names on the hub: the real command and hub library; the hub is a fake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import fake_hub
from triple_files import write_adapter

from lorid.method.roles import Role

TOKEN = "hf_of_this_test"
PREFIX = "LoRID-Math/MATH-LLaMA-2-7B"


@pytest.fixture
def hub(tmp_path):
    """The published adapters of one preset, as small files, with a path of their makers as base."""
    models = {
        f"{PREFIX}-{role.short}": write_adapter(
            tmp_path / "hub" / role, seed=n, base_model_name_or_path="/home/maker/llama"
        )
        for n, role in enumerate(Role)
    }
    for folder in models.values():
        (folder / "training_args.bin").write_bytes(b"\x80\x04 a pickle that nobody may fetch")
    with fake_hub(models, token=TOKEN) as hub:
        yield hub


def run(hub, folder: Path, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from lorid.cli import main; main()", "triple", *arguments]
    env = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0",
    }  # fmt: skip
    return subprocess.run(
        [*command, "--store", str(folder / "store"), "--json"],
        env=env, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip


def test_a_preset_brings_its_published_adapters_and_its_base(hub, tmp_path):
    options = ("import", "--name", "published", "--preset", "math_llama2")
    refused = run(hub, tmp_path, *options, token="hf_wrong")
    assert refused.returncode == 2
    assert f"cannot fetch {PREFIX}-IR" in refused.stderr
    assert "HF_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr

    done = run(hub, tmp_path, *options)
    assert done.returncode == 0, done.stderr
    shown = json.loads(run(hub, tmp_path, "show", "published").stdout)
    base = shown["base"]
    assert (base["name"], base["family"]) == ("meta-llama/Llama-2-7b-hf", "llama2")
    assert shown["sampling"]["temperature"] == 1.5
    asked = {path for _, path in hub.requests}
    assert not [path for path in asked if path.endswith(".bin")]

    # What the library's cache holds is not fetched again.
    num_files = sum("/resolve/" in path for method, path in hub.requests if method == "GET")
    again = run(hub, tmp_path, *options)
    assert again.returncode == 0, again.stderr
    assert sum("/resolve/" in p for method, p in hub.requests if method == "GET") == num_files


def test_names_and_folders_may_be_mixed_and_a_missing_name_is_said(hub, tmp_path):
    own = write_adapter(tmp_path / "mine-DR", seed=9)
    names = (f"{PREFIX}-IR", f"KG={PREFIX}-KG", str(own))
    options = ("--name", "mixed", "--preset", "math_llama2", "--base", "meta-llama/Llama-2-7b-hf")
    done = run(hub, tmp_path, "import", *names, *options)
    assert done.returncode == 0, done.stderr
    missing = run(hub, tmp_path, "import", f"{PREFIX}-IR", "LoRID-Math/No-KG", str(own), *options)
    assert missing.returncode == 2
    assert "cannot fetch LoRID-Math/No-KG from the hub" in missing.stderr
    nothing = run(hub, tmp_path, "import", "--name", "x", "--preset", "demo")
    assert nothing.returncode == 2
    assert "no adapters are published for preset 'demo'" in nothing.stderr

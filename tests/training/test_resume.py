"""Processes killed at random steps end with the adapters of one that was never killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny import tiny_base

from lorid.method.roles import Role

NUM_KILLS = int(os.environ.get("LORID_TRAIN_KILLS", "3"))
TIMINGS = ("seconds", "tokens_per_s", "supervised_tokens_per_s", "memory_bytes")


def rows(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in TIMINGS}
        for line in lines
    ]


def test_killed_runs_end_bit_for_bit_like_a_whole_one(tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    tiny_base().save_pretrained(base)
    out.mkdir()
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, here / "mortal_trainer.py", base, out, str(NUM_KILLS), "7"],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)])},
    )
    for role in list(Role)[:2]:
        whole, killed = (out / name / "newest" / role for name in ("whole", "killed"))
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            assert (whole / "adapter" / file).read_bytes() == (
                killed / "adapter" / file
            ).read_bytes()
        assert [row["step"] for row in rows(killed)] == list(range(1, 25))
        assert rows(killed) == rows(whole)

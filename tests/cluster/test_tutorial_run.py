"""docs/tutorial.md, every command as it stands and in its order, in miniature.

    LORID_TUTORIAL=transcript.txt pytest tests/cluster/test_tutorial_run.py

Models and problems are the demo's, the provider is a local server (tutorial_commands.py). It takes
minutes on two cores, so only on demand. `serve run` takes port 8000: nothing else may.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from free_ports import free_port
from misbehaving_server import misbehaving_server
from tutorial_commands import ROOT, commands, items_text, miniature

from lorid.client import Client
from lorid.jsonl import read_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.timeout(1500)]
WANTED = os.environ.get("LORID_TUTORIAL")
URL = "http://127.0.0.1:8000"


@pytest.fixture
def teacher():
    """Asks for the key, as a provider does, and meets each kind of bad text now and then."""
    faults = {"malformed": 0.05, "prose": 0.05, "500": 0.03}
    with misbehaving_server(api_key="sk-tutorial", faults=faults, seed=1) as server:
        yield server


@pytest.fixture
def box(tmp_path, teacher):
    """A reader's folder and environment."""
    (tmp_path / "run.yaml").write_text(miniature(teacher_url=teacher.url, port=free_port()))
    (tmp_path / "items.jsonl").write_text(items_text())
    for name in ("jobs", "serve"):
        (tmp_path / name).symlink_to(ROOT / name)
    bin_folder = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OPENAI_API_KEY": "sk-tutorial",
    }
    return {"cwd": tmp_path, "env": environment}


@pytest.mark.skipif(not WANTED, reason="LORID_TUTORIAL names the transcript to write")
def test_the_tutorial_runs_as_it_stands(box):
    background = []
    with Path(str(WANTED)).open("w") as transcript:
        try:
            for words in commands():
                print(f"$ {' '.join(words)}", file=transcript, flush=True)
                if words[0] == "serve":
                    # Not a cluster of somebody else's that Ray remembers on this machine.
                    alone = box["env"] | {"RAY_ADDRESS": "local"}
                    process = subprocess.Popen(
                        words, cwd=box["cwd"], env=alone, stdout=transcript, stderr=transcript,
                        start_new_session=True,
                    )  # fmt: skip
                    background.append(process)
                    with Client(URL) as client:
                        client.wait_until_ready(timeout_s=300)
                else:
                    done = subprocess.run(words, **box, stdout=transcript, stderr=transcript)
                    assert done.returncode == 0, words
        finally:
            for process in background:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=120)
    folder = box["cwd"]
    verdicts = {row["id"]: row["verdict"] for _, row in read_jsonl(folder / "graded.jsonl")}
    assert verdicts.keys() == {"1", "2"}
    assert None not in verdicts.values()
    for made in ("report/report.html", "evaluation/attempts.jsonl", "knowledge/README.md"):
        assert (folder / made).stat().st_size > 0
    assert (folder / "gsm8k-qwen-triple" / "triple.json").is_file()

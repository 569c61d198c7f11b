"""vLLM's own OpenAI server with the demo's teacher: a real API to ask, ready in about 20 s.

with vllm_server(folder) as url: ...
"""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from free_ports import free_port

from lorid.presets import DEMO_MODELS

MODEL = "demo-teacher"
KEY = "key-of-the-vllm-server"
READY_TIMEOUT_S = 150
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_API_KEY": KEY,
}
OPTIONS = (
    "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "64", "--enforce-eager",
    "--no-enable-chunked-prefill", "--distributed-executor-backend", "uni",
)  # fmt: skip


@contextmanager
def vllm_server(folder: Path) -> Iterator[str]:
    """Start the server, give its base URL, end it."""
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(DEMO_MODELS / "teacher"), "--served-model-name", MODEL,
        "--host", "127.0.0.1", "--port", str(port), *OPTIONS,
    ]  # fmt: skip
    with (folder / "vllm.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, log=folder / "vllm.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        # The whole group: the engine's process outlives a server that is only killed.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", *, log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-2000:]) from error
            time.sleep(0.2)
        else:
            return

"""The command line: `lorid ...`. One file a group of commands; each joins `lorid.cli.app.app`.

Exit codes: 0 done, 2 the user's mistake (one line: cause and fix), 130 interrupted, 1 the rest.
Ray, torch and vLLM are imported inside the commands that need them, so `--help` is instant.
"""

from lorid.cli import (
    configs,
    contamination,
    demo,
    endpoint,
    evaluate,
    hub,
    knowledge,
    merging,
    plan,
    replay,
    runs,
    store,
    tokens,
    triples,
)  # fmt: skip
from lorid.cli.app import main

__all__ = [
    "configs", "contamination", "demo", "endpoint", "evaluate", "hub", "knowledge", "main",
    "merging", "plan", "replay", "runs", "store", "tokens", "triples",
]  # fmt: skip

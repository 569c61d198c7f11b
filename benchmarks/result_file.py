"""Where a benchmark's figures go: one JSON file with command, versions and machine beside them."""

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"


def write_result(
    name: str,
    figures: Mapping[str, Any],
    *,
    command: str,
    packages: tuple[str, ...] = (),
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write `benchmarks/results/NAME-DATE.json`; versions of `packages` are this environment's."""
    result = {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": {
            "cores": psutil.cpu_count(logical=False),
            "processors": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
            "architecture": platform.machine(),
            "python": platform.python_version(),
        },
        "versions": {package: version(package) for package in packages} | dict(versions or {}),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}-{datetime.now(UTC):%Y-%m-%d}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    return file

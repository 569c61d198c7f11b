"""What growing, shrinking and losing nodes costs in time, on Ray's fake cloud on one machine.

    python benchmarks/autoscaling.py [-k EXPRESSION]

Runs tests/cluster/test_autoscaling.py and test_node_loss.py, which assert that every run ends with
the files of an undisturbed one, and keeps the seconds that they measure. With `-k` only some cases
run, and the others of that day stay as they are.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import psutil
from result_file import RESULTS, write_result

ROOT = Path(__file__).resolve().parents[1]
FILES = ("tests/cluster/test_autoscaling.py", "tests/cluster/test_node_loss.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="pytest's: which cases")
    only = parser.parse_args().k
    today = RESULTS / f"autoscaling-{datetime.now(UTC):%Y-%m-%d}.json"
    cases = json.loads(today.read_text())["cases"] if only and today.exists() else {}
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as figures:
        code = subprocess.call(
            [sys.executable, "-m", "pytest", "-s", *FILES, *(["-k", only] if only else [])],
            cwd=ROOT,
            env={**os.environ, "LORID_AUTOSCALING": "1", "LORID_FIGURES": figures.name},
        )
        for line in Path(figures.name).read_text().splitlines():
            row = json.loads(line)
            cases[row.pop("case")] = {**row, "load_average": psutil.getloadavg()[0]}
    if cases:
        write_result(
            "autoscaling", {"cases": cases}, command="python benchmarks/autoscaling.py",
            packages=("ray", "torch"),
        )  # fmt: skip
    return code


if __name__ == "__main__":
    sys.exit(main())

"""What docs/tutorial.md says about time and money: `lorid plan` on GSM8K, and sizing's arithmetic.

    python benchmarks/tutorial.py train.jsonl test.jsonl     # GSM8K's own files

The config is the one that the tutorial shows, with the files in place of the hub. The plan and the
time that `prepare` took are measured here; minutes on a GPU are worked out from
benchmarks/sizing.yaml, as docs/sizing.md explains, and the limits of the teacher's server are the
config's. Prints the tutorial's plan and table, and writes both to benchmarks/results/.
"""

import argparse
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from result_file import write_result
from sizing import INPUTS, Model, rates_of

from lorid.artifacts.store import open_store
from lorid.cli.plan import plan_lines
from lorid.config import RunConfig, parse_config
from lorid.distributed.pipeline import run_pipeline
from lorid.distributed.planning import Assumed, plan_run

ROOT = Path(__file__).parents[1]
NUM_TRIAL = 32
TRAIN_TOKENS_PER_S = 23_000  # as the tutorial types it: docs/sizing.md says 23,061


def config_of_tutorial(*overrides: str) -> RunConfig:
    """The config that the tutorial has its reader write."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    found = re.search(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    return parse_config(found[1], overrides=overrides)


def measured(train: Path, test: Path) -> dict[str, Any]:
    """The plan before anything is there, and how long `prepare` takes."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of_tutorial(
            "data.source=jsonl", f"data.train={train}", f"data.test={test}", f"store={folder}"
        )
        assumed = Assumed(train_tokens_per_s=TRAIN_TOKENS_PER_S)
        plan = plan_run(config, store=open_store(config.store), assumed=assumed)
        started = time.perf_counter()
        run_pipeline(config, stages=("prepare",))
        seconds = time.perf_counter() - started
    return {
        "plan": asdict(plan),
        "plan_lines": plan_lines(plan),
        "prepare_s": round(seconds, 1),
        "load_average": [round(one, 1) for one in os.getloadavg()],
    }


def stages(figures: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Minutes and dollars of each step; the box is paid for as long as it is there."""
    plan, work = figures["plan"], inputs["workload"]
    rates = rates_of(Model(**inputs["models"]["students"][0]), dict(inputs))
    start = inputs["minutes"]["engine"]
    generations = plan["evaluation"]["num_generations"]
    writing = (
        generations * work["generation_prompt_tokens"] / rates.prefill
        + generations * work["generation_output_tokens"] / rates.decode
    )
    a_request = plan["teacher"]["price"] / plan["teacher"]["num_requests"]
    rows = (
        ("install", inputs["minutes"]["new_node"], 0.0),
        (f"trial: {NUM_TRIAL} problems", 2 * start, NUM_TRIAL * a_request),
        ("prepare", figures["prepare_s"] / 60, 0.0),
        ("knowledge", plan["teacher"]["seconds_at_least"] / 60, plan["teacher"]["price"]),
        ("train", start + plan["training"]["tokens"] / rates.train / 60, 0.0),
        ("evaluate and report", start + writing / 60, 0.0),
    )
    for name, minutes, teacher in rows:
        box = minutes / 60 * inputs["prices"]["gpu"]
        yield {"stage": name, "minutes": minutes, "teacher_usd": teacher, "box_usd": box}


def table(figures: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """The tutorial's table, as Markdown."""
    rows = list(stages(figures, inputs))
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "stage"}
    lines = ["| step | minutes | teacher, USD | box, USD |", "|---|---|---|---|"]
    for row in (*rows, {"stage": "**all**", **total}):
        minutes = f"{row['minutes']:.0f}" if row["minutes"] >= 1 else "below 1"
        teacher = f"{row['teacher_usd']:.2f}" if row["teacher_usd"] else "-"
        lines.append(f"| {row['stage']} | {minutes} | {teacher} | {row['box_usd']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    arguments = parser.parse_args()
    figures = measured(arguments.train, arguments.test)
    inputs = yaml.safe_load(INPUTS.read_text())
    print("\n".join(figures["plan_lines"]), table(figures, inputs), sep="\n\n")
    file = write_result(
        "tutorial",
        json.loads(json.dumps(figures)) | {"stages": list(stages(figures, inputs))},
        command="python benchmarks/tutorial.py train.jsonl test.jsonl",
        packages=("ray", "torch", "transformers"),
    )
    print(f"\n{file}")


if __name__ == "__main__":
    main()

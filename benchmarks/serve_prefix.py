"""What a question's later rounds read again: prompt tokens computed of those that were submitted.

The same questions by mutual feedback, on one engine each with vLLM's prefix cache as lorid sets it,
as vLLM sets it by itself, and without it. vLLM tells with each text how many of its prompt's tokens
were in the cache. Texts are compared: a cache changes nothing but near ties.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from serve_protocol import ours
from serve_triple import (
    Counted,
    InFlight,
    Problem,
    cpu_seconds,
    demo_triple,
    engine_of,
    in_process,
    load_average,
    run_side,
    write,
)

import lorid.engines.vllm as vllm_engine
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Transcript
from lorid.method.stopping import Policy

KINDS: dict[str, dict[str, Any]] = {
    "as lorid sets it": {},
    "vLLM's own block size": {"block_size": None},
    "without": {"enable_prefix_caching": False},
}


def kind_side(settings: dict[str, Any]) -> dict[str, Any]:
    """One setting of the cache."""
    changes = KINDS[settings["kind"]]
    arguments_of = vllm_engine.engine_arguments

    def changed(*arguments: Any, **options: Any) -> dict[str, Any]:
        return {**arguments_of(*arguments, **options), **changes}

    vllm_engine.engine_arguments = changed
    with tempfile.TemporaryDirectory() as folder, AnswerChecker() as checker:
        triple = demo_triple(settings["store"], Path(folder), num_problems=settings["problems"])
        policy = Policy(rule="paper", max_rounds=settings["rounds"])

        async def run() -> dict[str, Any]:
            async with engine_of(triple) as engine:
                # What the probe has read is not counted, nor kept.
                await engine.engine.reset_prefix_cache()
                counted = Counted(engine.engine)
                block = engine.engine.vllm_config.cache_config.block_size

                def draw(question: str, ask: Ask) -> Any:
                    return write(engine, triple, question, ask)

                async def solve(problem: Problem) -> Transcript:
                    return await ours(draw, problem, policy=policy, checker=checker)

                wall, cpu = time.perf_counter(), cpu_seconds()
                found = await InFlight(settings["in_flight"]).all(solve, triple.problems)
                wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
            return {
                "block_size": block, **counted.figures(),
                "wall_s": round(wall, 1), "cpu_s": round(cpu, 1),
                "written": {
                    f"{number} {ask.role} {ask.round_index}": sampled.text
                    for number, one in enumerate(found)
                    for ask, sampled in one.used
                },
            }  # fmt: skip

        return asyncio.run(run())


def prefix_figures(store: str, *, num_problems: int, rounds: int) -> dict[str, Any]:
    """Every setting, one after the other."""
    settings = {"store": store, "problems": num_problems, "rounds": rounds, "in_flight": 64}
    load = load_average()
    found = {
        kind: in_process("serve_prefix.py", "kind", {**settings, "kind": kind}) for kind in KINDS
    }
    written = [one.pop("written") for one in found.values()]
    equal = [
        sum(texts[key] == text for key, text in written[0].items() if key in texts)
        for texts in written
    ]
    # A near tie may fall otherwise where a prompt was read in other pieces.
    assert min(equal) >= 0.98 * equal[0], equal
    return {
        **settings, "store": "lorid-demo/store", "load_average": load,
        "equal_texts": equal, "settings": found,
    }  # fmt: skip


if __name__ == "__main__":
    run_side({"kind": kind_side})

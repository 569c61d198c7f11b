"""One engine with three adapters beside merged weights, and beside PEFT: tokens a second.

    shared          one engine, three adapters, the texts of all roles in one batch
    vllm's own      the same with vLLM's own LoRA operators for the CPU in place of lorid's
    merged          one engine for each role, its adapter in its weights; one at a time
    side by side    the three merged engines at once, in a process each, on this machine's cores
    peft            `generate` of one PEFT model with an adapter for each row

Every contender writes the same greedy texts by the same settings, in runs of the same number of
texts: each role's texts of all questions for a merged engine, and for the shared one as many with
the roles in turn. Texts are compared. The first three take turns in one process, so that what else
the machine does hits all; processor seconds are given beside wall seconds. All of it on the demo's
triple, and `shared` and `merged` on a wider base too (serve_wide.py), for which vLLM's own
operators take minutes.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from serve_triple import (
    NAME,
    DemoTriple,
    Problem,
    cpu_seconds,
    demo_triple,
    engine_of,
    in_process,
    load_average,
    run_side,
)

from lorid.config import SamplingConfig
from lorid.engines import settings as engine_settings
from lorid.engines.base import GenerationRequest
from lorid.engines.vllm import VllmEngine
from lorid.method.roles import Role

Texts = dict[tuple[Role, str], str]
ROLES = tuple(Role)


def greedy(triple: DemoTriple) -> SamplingConfig:
    """The triple's sampling without chance."""
    return triple.config.sampling.model_copy(update={"temperature": 0.0})


def request(problem: Problem, role: Role) -> GenerationRequest:
    """One text by a role; the deep reasoner reads logged knowledge."""
    knowledge = problem.knowledge if role is Role.DEEP_REASONER else None
    return GenerationRequest(
        question=problem.question, role=role, triple=NAME, knowledge=knowledge, seed=1
    )


class Meter:
    """Texts, tokens and seconds of runs."""

    def __init__(self) -> None:
        self.runs: list[dict[str, float]] = []
        self.texts: Texts = {}

    async def run(self, engine: VllmEngine, asked: Sequence[tuple[Problem, Role]]) -> None:
        """All of them at once."""
        await engine.engine.reset_prefix_cache()
        wall, cpu = time.perf_counter(), cpu_seconds()
        found = await asyncio.gather(
            *(engine.generate(request(problem, role)) for problem, role in asked)
        )
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        tokens = sum(one.num_tokens for one in found)
        self.runs.append({"wall_s": wall, "cpu_s": cpu, "tokens": tokens})
        for (problem, role), one in zip(asked, found, strict=True):
            self.texts[role, problem.question] = one.text

    def figures(self, *, num_a_turn: int) -> dict[str, Any]:
        """Medians over turns: a turn is the runs that together write every text."""
        starts = range(0, len(self.runs), num_a_turn)
        turns = [self.runs[start : start + num_a_turn] for start in starts]

        def rate(what: str) -> float:
            rates = [sum(r["tokens"] for r in t) / sum(r[what] for r in t) for t in turns]
            return round(statistics.median(rates), 1)

        return {
            "tokens_a_turn": int(sum(run["tokens"] for run in turns[0])),
            "tokens_per_s": rate("wall_s"),
            "tokens_per_cpu_s": rate("cpu_s"),
        }


@contextlib.asynccontextmanager
async def merged_engine(triple: DemoTriple, role: Role, folder: Path) -> AsyncIterator[VllmEngine]:
    """One engine on the base with the role's adapter in its weights."""
    config = triple.config
    engine = VllmEngine(
        student=config.student.model_copy(update={"path": str(folder / role)}),
        sampling=config.sampling,
        engine=config.engine,
        seed=config.seed,
        merged_role=role,
    )
    await engine.load(NAME, adapters={}, sampling=greedy(triple))
    try:
        await engine.probe(NAME)
        yield engine
    finally:
        await engine.aclose()


def merge(triple: DemoTriple, folder: Path, *, roles: Sequence[Role] = ROLES) -> None:
    """Each role's merged weights, into a folder of its name."""
    from lorid.engines.settings import set_environment

    # vLLM's environment is read when torch is imported.
    set_environment(triple.config.engine, student=triple.config.student)
    from lorid.training.merging import merge_adapter

    for role in roles:
        merge_adapter(triple.config.student, adapter=triple.folders[role], out=folder / role)


@contextlib.asynccontextmanager
async def plain_engine(triple: DemoTriple) -> AsyncIterator[VllmEngine]:
    """The shared engine with vLLM's own operators."""
    ours, engine_settings.CPU_LORA_WORKER = engine_settings.CPU_LORA_WORKER, "auto"
    try:
        async with engine_of(triple, sampling=greedy(triple)) as engine:
            engine_settings.CPU_LORA_WORKER = ours
            yield engine
    finally:
        engine_settings.CPU_LORA_WORKER = ours


def triple_of(settings: dict[str, Any], folder: Path) -> DemoTriple:
    """The demo's, or that on the wider base."""
    triple = demo_triple(settings["store"], folder, num_problems=settings["problems"])
    if settings["is_wide"]:
        from serve_wide import widened

        return widened(triple, folder)
    return triple


async def in_turn(
    triple: DemoTriple, folder: Path, *, turns: int, has_plain: bool
) -> dict[str, Meter]:
    """The contenders that share a process, one after the other, again and again."""
    problems = triple.problems
    meters = {"shared": Meter(), "merged": Meter()}
    mixing: dict[str, VllmEngine] = {}
    async with contextlib.AsyncExitStack() as stack:
        if has_plain:
            meters["vllm's own"] = Meter()
            mixing["vllm's own"] = await stack.enter_async_context(plain_engine(triple))
        shared = engine_of(triple, sampling=greedy(triple))
        mixing["shared"] = await stack.enter_async_context(shared)
        each = {
            role: await stack.enter_async_context(merged_engine(triple, role, folder))
            for role in ROLES
        }
        for engine in mixing.values():
            await Meter().run(engine, [(one, role) for one in problems[:8] for role in ROLES])
        for role in ROLES:
            await Meter().run(each[role], [(one, role) for one in problems[:8]])
        for _ in range(turns):
            for shift, role in enumerate(ROLES):
                mixed = [
                    (problem, ROLES[(number + shift) % len(ROLES)])
                    for number, problem in enumerate(problems)
                ]
                await meters["merged"].run(each[role], [(one, role) for one in problems])
                for name, engine in mixing.items():
                    await meters[name].run(engine, mixed)
    return meters


def packed(texts: Texts) -> list[list[str]]:
    """Texts as JSON holds them."""
    return [[str(role), question, text] for (role, question), text in texts.items()]


def turns_side(settings: dict[str, Any]) -> dict[str, Any]:
    """The contenders that take turns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        triple = triple_of(settings, folder)
        merge(triple, folder / "merged")
        running = in_turn(
            triple, folder / "merged", turns=settings["turns"], has_plain=not settings["is_wide"]
        )
        meters = asyncio.run(running)
    return {
        name: {**meter.figures(num_a_turn=len(ROLES)), "texts": packed(meter.texts)}
        for name, meter in meters.items()
    }


def beside_side(settings: dict[str, Any]) -> dict[str, Any]:
    """One merged engine of those that run side by side; it begins when all are warm."""
    role, gate = Role(settings["role"]), Path(settings["gate"])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        triple = demo_triple(settings["store"], folder, num_problems=settings["problems"])
        merge(triple, folder / "merged", roles=[role])

        async def run() -> Meter:
            meter = Meter()
            async with merged_engine(triple, role, folder / "merged") as engine:
                await Meter().run(engine, [(problem, role) for problem in triple.problems[:8]])
                (gate / role).touch()
                while len(list(gate.iterdir())) < len(ROLES):
                    await asyncio.sleep(0.02)
                await meter.run(engine, [(problem, role) for problem in triple.problems])
            return meter

        meter = asyncio.run(run())
    return {**meter.runs[0], "texts": packed(meter.texts)}


def side_by_side(settings: dict[str, Any]) -> dict[str, Any]:
    """The three of them; the slowest one's seconds count."""
    with tempfile.TemporaryDirectory() as gate:
        started = [
            in_process(
                "serve_layouts.py", "beside", {**settings, "role": role, "gate": gate}, wait=False
            )
            for role in ROLES
        ]
        found = [result() for result in started]
    tokens, wall = sum(one["tokens"] for one in found), max(one["wall_s"] for one in found)
    return {
        "tokens_a_turn": int(tokens),
        "tokens_per_s": round(tokens / wall, 1),
        "tokens_per_cpu_s": round(tokens / sum(one["cpu_s"] for one in found), 1),
        "texts": [text for one in found for text in one["texts"]],
    }


def peft_side(settings: dict[str, Any]) -> dict[str, Any]:
    """PEFT's mixed batches: an adapter for each row, padded on the left."""
    with tempfile.TemporaryDirectory() as temporary:
        triple = demo_triple(settings["store"], Path(temporary), num_problems=settings["problems"])
        from serve_peft import MixedBatches

        model = MixedBatches(triple)
        asked = [
            (problem, ROLES[number % len(ROLES)]) for number, problem in enumerate(triple.problems)
        ]
        size = triple.config.engine.max_num_seqs
        model.write(asked[:8])
        wall, cpu = time.perf_counter(), cpu_seconds()
        texts, tokens = {}, 0
        for start in range(0, len(asked), size):
            rows = asked[start : start + size]
            written = model.write(rows)
            tokens += sum(count for _, count in written)
            for (problem, role), (text, _) in zip(rows, written, strict=True):
                texts[role, problem.question] = text
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {
        "tokens_a_turn": tokens,
        "tokens_per_s": round(tokens / wall, 1),
        "tokens_per_cpu_s": round(tokens / cpu, 1),
        "texts": packed(texts),
    }


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """The contenders' figures and the shared engine's over theirs; texts are compared and go."""
    expected = {(role, text): words for role, text, words in found["shared"]["texts"]}
    equal: dict[str, str] = {}
    for name, one in found.items():
        texts = one.pop("texts")
        same = sum(expected[role, question] == words for role, question, words in texts)
        equal[name] = f"{same} of {len(texts)}"
        # Merged weights are rounded once more, so a near tie may fall otherwise.
        assert same >= 0.98 * len(texts), (name, equal[name])
    return {
        "texts_equal_to_shared": equal, "contenders": found,
        "shared_over": {
            name: {
                what: round(found["shared"][what] / one[what], 3)
                for what in ("tokens_per_s", "tokens_per_cpu_s")
            }
            for name, one in found.items()
            if name != "shared"
        },
    }  # fmt: skip


def layouts_figures(store: str, *, num_problems: int, turns: int) -> dict[str, Any]:
    """All contenders on the demo's triple, and two of them on the wider base."""
    settings = {"store": store, "problems": num_problems, "turns": turns}
    load = load_average()
    half = {**settings, "problems": num_problems // 2, "is_wide": True}
    wide = in_process("serve_layouts.py", "turns", half)
    found = in_process("serve_layouts.py", "turns", {**settings, "is_wide": False})
    found["side by side"] = side_by_side(settings)
    found["peft"] = in_process("serve_layouts.py", "peft", settings)
    return {
        **settings, "store": "lorid-demo/store", "load_average": load, **compared(found),
        "on the wider base": compared(wide),
    }  # fmt: skip


if __name__ == "__main__":
    run_side({"turns": turns_side, "beside": beside_side, "peft": peft_side})

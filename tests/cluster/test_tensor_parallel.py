"""The served student shared by two workers: the same texts of each role, on real Serve and vLLM.

Two engines after another on a core for each worker, so by hand:

    LORID_LAYOUTS=1 pytest tests/cluster/test_tensor_parallel.py -s
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from parallel_probe import Probe
from ray import serve
from ray.serve.config import HTTPOptions
from small import adapter_folder, num_processes, random_triple
from widened import write_widened

from lorid.api import SolveRequest
from lorid.artifacts.store import open_store
from lorid.config import ModelConfig
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import app_of_run
from lorid.engines import vllm
from lorid.engines.base import GenerationRequest
from lorid.engines.cpu_lora import GroupedLora
from lorid.engines.vllm import VllmEngine
from lorid.method.roles import Role
from lorid.presets import demo

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.vllm,
    pytest.mark.timeout(400),
    pytest.mark.skipif("LORID_LAYOUTS" not in os.environ, reason="two workers: LORID_LAYOUTS=1"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a worker needs a core of its own"),
]
# Of each kind that is split over workers: by columns (its B is), by rows (its A is).
ALL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUESTIONS = [f"Tom has {n} apples and finds 4 more. How many?" for n in range(6)]
SETTINGS = {
    "sampling.temperature": 0, "sampling.max_new_tokens": 24, "engine.max_model_len": 256,
    "feedback.max_rounds": 2,
}  # fmt: skip


def served_texts(run: str, *, num_workers: int) -> Mapping[str, Sequence[str]]:
    """What each role and the base write of every question in one batch, and whole solutions."""
    settings = {**SETTINGS, "engine.tensor_parallel_size": num_workers}
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=free_port()))
        try:
            serve.run(app_of_run(run, overrides=settings), name="lorid")
            handle = serve.get_deployment_handle("StudentEngine", app_name="lorid")
            assert handle.ready.remote().result()["refused"] is None
            assert num_processes("VLLM::Worker") == (num_workers if num_workers > 1 else 0)
            return asyncio.run(texts_of(handle))
        finally:
            serve.shutdown()


async def texts_of(handle: Any) -> Mapping[str, Sequence[str]]:
    speakers = [*map(str, Role), None]
    alone = await asyncio.gather(
        *(handle.answer_alone.remote(one, name, 1) for name in speakers for one in QUESTIONS)
    )
    solved = await asyncio.gather(
        *(handle.solve.remote(SolveRequest(question=one)) for one in QUESTIONS)
    )
    texts = [each.answer.text for each in alone]
    num = len(QUESTIONS)
    found = {str(name): texts[n * num : (n + 1) * num] for n, name in enumerate(speakers)}
    found["solved"] = [sampled.text for each in solved for _, sampled in each.answer.used]
    return found


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ALL_TARGETS], ids=["qv", "all"])
def test_a_student_shared_by_two_workers_writes_the_same(tmp_path, targets):
    store = open_store(str(tmp_path / "store"))
    base = write_widened(tmp_path / "base", model="base")
    random_triple(store, tmp_path / "triple", seed=1, base=base, targets=targets)
    one, two = (served_texts(f"{store.uri}#demo", num_workers=number) for number in (1, 2))
    assert two == one
    assert all(any(one[role]) for role in one)
    # An adapter that did nothing would write what the base writes.
    assert all(one[role] != one["None"] for role in map(str, Role))
    print({name: f"{len(some)} texts, such as {some[0]!r}" for name, some in one.items()})


@pytest.mark.asyncio
async def test_each_worker_has_our_operators_and_its_own_share_of_an_adapter(tmp_path, monkeypatch):
    """And takes another triple while it runs."""
    base = write_widened(tmp_path / "base", model="base")
    real = vllm.engine_arguments
    probe = f"{Probe.__module__}.{Probe.__qualname__}"
    monkeypatch.setattr(
        vllm, "engine_arguments", lambda *a, **k: real(*a, **k) | {"worker_extension_cls": probe}
    )
    engine = engine_on(base)
    try:
        for name, seed in (("first", 1), ("second", 11)):
            adapters = {
                role: adapter_folder(
                    tmp_path / name / role, seed=seed + n, base=base, targets=ALL_TARGETS
                )
                for n, role in enumerate(Role)
            }
            await engine.load(name, adapters=adapters, sampling=engine.sampling)
            assert len(set((await engine.probe(name)).values())) == 1 + len(Role)
        assert await engine.engine.collective_rpc("lora_operators") == 2 * [GroupedLora.__name__]
        rank, width, wide = 8, 256, 640
        for shapes in await engine.engine.collective_rpc("lora_shapes"):
            # By columns: every A whole, and of B the half that belongs to this worker's heads.
            qkv = 3 * [[rank, width]] + 3 * [[width // 2, rank]]
            assert shapes["QKVParallelLinear"] == qkv
            pair = 2 * [[rank, width]] + 2 * [[wide // 2, rank]]
            assert shapes["MergedColumnParallelLinear"] == pair
            # By rows: of A the half for what comes in here, every B whole.
            assert shapes["RowParallelLinear"] == [[rank, width // 2], [width, rank]]
        asked = GenerationRequest(
            question=QUESTIONS[0], role=Role.INTUITIVE_REASONER, triple="first", seed=1
        )
        before = await engine.generate(asked)
        await engine.unload("second")
        assert await engine.generate(asked) == before
    finally:
        await engine.aclose()


def engine_on(base: Path) -> VllmEngine:
    config = demo()
    changes = {"max_model_len": 256, "tensor_parallel_size": 2}
    return VllmEngine(
        student=ModelConfig(path=str(base), dtype="float32"),
        sampling=config.sampling.model_copy(update={"max_new_tokens": 24, "temperature": 0.0}),
        engine=config.engine.model_copy(update=changes),
        num_triples=2,
    )

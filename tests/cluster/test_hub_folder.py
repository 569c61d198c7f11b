"""An exported triple needs nothing of ours: plain PEFT and vLLM write what our engine writes."""

import subprocess
import sys
from pathlib import Path

import pytest
from small import random_triple

from lorid.artifacts.hub import export_triple, import_triple
from lorid.artifacts.records import fetch
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest, role_folders
from lorid.engines.base import GenerationRequest
from lorid.engines.vllm import VllmEngine
from lorid.method.roles import Role
from lorid.method.templates import encode_prompt, stop_token_ids
from lorid.presets import demo

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
KNOWLEDGE = "To find a total, add."
MAX_TOKENS = 24


def knowledge_of(role):
    return KNOWLEDGE if role is Role.DEEP_REASONER else None


@pytest.fixture(scope="module")
def triple(tmp_path_factory):
    """The store, the triple, the folder that it was exported to, and what was imported again."""
    root = tmp_path_factory.mktemp("triple")
    store = open_store(str(root / "store"))
    record = random_triple(store, root / "made", seed=4)
    export_triple(store, record, into=root / "out")
    return store, record, root / "out", import_triple(store, root / "out", name="again")


@pytest.fixture(scope="module")
def prompts():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(demo().student.path)
    ids = {
        role: encode_prompt(
            tokenizer, family=demo().student.family, role=role, question=QUESTION,
            knowledge=knowledge_of(role),
        )
        for role in Role
    }  # fmt: skip
    return tokenizer, ids


@pytest.fixture(scope="module")
def written(triple, tmp_path_factory):
    """What our engine writes, greedily, by the triple and by the one that was imported again."""
    import asyncio

    store, record, _, again = triple
    greedy = demo().sampling.model_copy(update={"temperature": 0.0, "max_new_tokens": MAX_TOKENS})

    async def write():
        engine = VllmEngine(
            student=demo().student, sampling=greedy, engine=demo().engine, num_triples=2
        )
        texts = {}
        try:
            for one in (record, again):
                folder = fetch(store, one, into=tmp_path_factory.mktemp("fetched"))
                await engine.load(one.address, adapters=role_folders(folder), sampling=greedy)
                for role in Role:
                    request = GenerationRequest(
                        question=QUESTION, role=role, triple=one.address,
                        knowledge=knowledge_of(role),
                    )  # fmt: skip
                    texts[one.address, role] = (await engine.generate(request)).text
        finally:
            await engine.aclose()
        return texts

    return asyncio.run(write())


def test_what_is_imported_again_writes_the_same(triple, written):
    store, record, _, again = triple
    assert read_manifest(store, again).base == read_manifest(store, record).base
    for role in Role:
        assert written[record.address, role]
        assert written[again.address, role] == written[record.address, role]
    assert len({written[record.address, role] for role in Role}) > 1


def verify(store, record) -> subprocess.CompletedProcess[str]:
    """`lorid triple verify --probe` as it is typed, in a process and an engine of its own."""
    lorid = str(Path(sys.executable).with_name("lorid"))
    command = [lorid, "triple", "verify", record.address, "--probe", "--store", store.uri]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_probe_in_a_real_engine_tells_a_sound_triple_from_an_idle_one(triple, tmp_path):
    store, record, _, _ = triple
    sound = verify(store, record)
    assert sound.returncode == 0, sound.stderr
    assert "each adapter answers unlike the base" in sound.stdout
    idle = verify(
        store, random_triple(store, tmp_path / "idle", seed=5, idle=Role.KNOWLEDGE_GENERATOR)
    )
    assert idle.returncode == 2
    assert idle.stderr.strip().splitlines()[-1] == (
        "error: these adapters answer like the base: knowledge_generator"
    )


def test_plain_peft_writes_the_same(triple, written, prompts):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, record, out, _ = triple
    tokenizer, ids = prompts
    stops = stop_token_ids(tokenizer, family=demo().student.family)
    for role in Role:
        base = AutoModelForCausalLM.from_pretrained(demo().student.path, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, str(out / role))
        prompt = torch.tensor([ids[role]])
        with torch.no_grad():
            made = model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                max_new_tokens=MAX_TOKENS, eos_token_id=stops, pad_token_id=0,
            )  # fmt: skip
        text = tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True).strip()
        assert text == written[record.address, role]


def test_plain_vllm_writes_the_same(triple, written, prompts):
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    _, record, out, _ = triple
    tokenizer, ids = prompts
    llm = LLM(
        model=demo().student.path, dtype="float32", max_model_len=512, enable_lora=True,
        max_loras=1, max_lora_rank=8, enforce_eager=True, distributed_executor_backend="uni",
    )  # fmt: skip
    stops = stop_token_ids(tokenizer, family=demo().student.family)
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS, stop_token_ids=stops)
    for number, role in enumerate(Role, start=1):
        request = LoRARequest(str(role), number, str(out / role))
        prompt = {"prompt_token_ids": ids[role]}
        (output,) = llm.generate(prompt, params, lora_request=request, use_tqdm=False)
        assert output.outputs[0].text.strip() == written[record.address, role]
    llm.llm_engine.engine_core.shutdown()

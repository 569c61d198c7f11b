"""Adapters of exactly the published form, rank 512 on q and v, served over Llama and Mistral.

The bases are as narrow as that rank allows, with random weights. They come in as published ones do:
by three adapter folders and a preset; the real engine then writes what plain PEFT writes.
"""

import asyncio
import os

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig

from lorid.artifacts.hub import import_triple
from lorid.artifacts.records import fetch
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest, role_folders
from lorid.config import EngineConfig, ModelConfig
from lorid.distributed.deployments import VllmFactory
from lorid.engines.base import GenerationRequest, idle_roles
from lorid.method.roles import Role
from lorid.method.templates import encode_prompt
from lorid.presets import demo, preset_named

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(200)]
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
NUM_TOKENS = 12
SHAPE = {"intermediate_size": 512, "num_hidden_layers": 2, "max_position_embeddings": 512}
# Keys and values of Mistral are narrower than its queries; 512 of them hold the rank.
BASES = {
    "gsm8k_llama2": LlamaConfig(hidden_size=512, num_attention_heads=4, **SHAPE),
    "math_mistral": MistralConfig(
        hidden_size=1024, num_attention_heads=8, num_key_value_heads=4, **SHAPE
    ),
}
# Half a minute each.
FORMS = list(BASES) if "LORID_PUBLISHED_FORMS" in os.environ else list(BASES)[:1]


def write_base(folder, config) -> None:
    tokenizer = AutoTokenizer.from_pretrained(demo().student.path)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    torch.manual_seed(3)
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2)  # far from uniform, so that the greedy token is clear
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_adapter(base, folder) -> None:
    settings = LoraConfig(
        r=512, lora_alpha=1024, lora_dropout=0.1, target_modules=["q_proj", "v_proj"],
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), settings
    )
    model.save_pretrained(str(folder))


def request_for(role: Role) -> GenerationRequest:
    knowledge = "To find a total, add." if role is Role.DEEP_REASONER else None
    return GenerationRequest(question=QUESTION, role=role, triple="published", knowledge=knowledge)


def written_by_peft(base, adapter, role: Role, family: str) -> str:
    tokenizer = AutoTokenizer.from_pretrained(base)
    asked = request_for(role)
    ids = encode_prompt(
        tokenizer, family=family, role=role, question=QUESTION, knowledge=asked.knowledge
    )
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter)
    )
    prompt = torch.tensor([ids])
    with torch.no_grad():
        made = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
            max_new_tokens=NUM_TOKENS, pad_token_id=0,
        )  # fmt: skip
    return tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("preset", FORMS)
def test_the_published_form_is_served(preset, tmp_path):
    write_base(tmp_path / "base", BASES[preset])
    for number, role in enumerate(Role):
        torch.manual_seed(number)
        write_adapter(tmp_path / "base", tmp_path / f"X-{role.short}")
    settings = preset_named(preset).endpoint()
    family = settings.student.family
    base = ModelConfig(path=str(tmp_path / "base"), family=family, dtype="float32")
    engine = EngineConfig(num_gpus=0, max_model_len=256, max_num_seqs=8, max_num_batched_tokens=512)
    sampling = settings.sampling.model_copy(
        update={"temperature": 0.0, "max_new_tokens": NUM_TOKENS}
    )
    store = open_store(str(tmp_path / "store"))
    record = import_triple(
        store,
        {role: tmp_path / f"X-{role.short}" for role in Role},
        name="published",
        settings=settings.model_copy(update={"engine": engine, "sampling": sampling}),
        base=base,
    )
    manifest = read_manifest(store, record)
    assert manifest.max_rank == 512
    folders = role_folders(fetch(store, record, into=tmp_path / "fetched"))

    async def served() -> tuple[dict[str, str], dict[Role, str]]:
        made = VllmFactory(num_triples=1)(manifest.endpoint(store=store.uri))
        try:
            await made.load("published", adapters=folders, sampling=manifest.sampling)
            probes = await made.probe("published")
            texts = {role: (await made.generate(request_for(role))).text for role in Role}
        finally:
            await made.aclose()
        return dict(probes), texts

    probes, texts = asyncio.run(served())
    assert not idle_roles(probes)
    for role in Role:
        theirs = written_by_peft(tmp_path / "base", folders[role], role, family)
        # vLLM writes a character when it is whole; the last token may hold the half of one.
        assert texts[role] == theirs.rstrip("\ufffd")

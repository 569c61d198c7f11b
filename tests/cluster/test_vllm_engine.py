"""The real engine: one base, three adapters with random weights, on the CPU."""

import asyncio
import json
import shutil

import pytest
import pytest_asyncio

from lorid.config import ModelConfig
from lorid.engines.adapters import WEIGHTS_FILE
from lorid.engines.base import GenerationRequest
from lorid.engines.vllm import VllmEngine
from lorid.errors import AdapterMismatch, ConfigError, EngineError
from lorid.method.drivers import run_async
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, generation_seed, mutual_feedback
from lorid.method.roles import Role
from lorid.method.stopping import Policy
from lorid.method.templates import encode_prompt
from lorid.method.waves import Waves
from lorid.presets import demo

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random adapter for each role, on the demo's base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = {}
    for number, role in enumerate(Role):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(demo().student.path, dtype=torch.float32)
        settings = LoraConfig(
            r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
        )
        made[role] = tmp_path_factory.mktemp(role)
        get_peft_model(base, settings).save_pretrained(str(made[role]), safe_serialization=True)
    return made


def engine_of(adapters, **changes) -> VllmEngine:
    config = demo()
    arguments = {
        "student": config.student,
        "sampling": config.sampling.model_copy(update={"max_new_tokens": 24}),
        "engine": config.engine.model_copy(update={"max_model_len": 256}),
    }
    return VllmEngine(adapters=adapters, **arguments | changes)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folders):
    """A started engine for all tests of this file."""
    started = engine_of(folders)
    await started.start()
    yield started
    await started.aclose()


def ask(role=Role.INTUITIVE_REASONER, *, seed=1, question=QUESTION) -> GenerationRequest:
    knowledge = "Add." if role is Role.DEEP_REASONER else None
    return GenerationRequest(question=question, role=role, knowledge=knowledge, seed=seed)


async def test_every_adapter_is_in_use(engine):
    probes = await engine.probe()
    assert probes.keys() == {"base", *map(str, Role)}
    assert len(set(probes.values())) == 4


async def test_the_same_seed_gives_the_same_text_in_any_batch(engine):
    alone = await engine.generate(ask(seed=7))
    batch = await asyncio.gather(
        *(engine.generate(ask(role, seed=seed)) for role in (*Role, None) for seed in (7, 8))
    )
    assert batch[0] == alone
    assert batch[1].text != alone.text
    assert alone.num_tokens <= 24
    assert alone.num_prompt_tokens > 10


async def test_the_base_stays_itself_among_requests_with_adapters(engine):
    prompt = encode_prompt(
        engine.tokenizer, family="tokenizer", role=Role.INTUITIVE_REASONER, question=QUESTION
    )
    greedy = engine.sampling.model_copy(update={"temperature": 0.0})

    async def likelihood(role):
        output = await engine._output(prompt, role=role, seed=0, sampling=greedy)
        return output.cumulative_logprob

    alone = await likelihood(None)
    *others, base = await asyncio.gather(*map(likelihood, (*Role, None)))
    assert base == pytest.approx(alone, abs=1e-4)
    assert all(other != pytest.approx(alone, abs=1e-4) for other in others)


@pytest.mark.parametrize("rank", [4, 16])
async def test_an_adapter_of_the_wrong_rank_is_refused_and_the_engine_still_answers(
    engine, folders, tmp_path, rank
):
    wrong = shutil.copytree(folders[Role.DEEP_REASONER], tmp_path / "wrong")
    config = json.loads((wrong / "adapter_config.json").read_text())
    (wrong / "adapter_config.json").write_text(json.dumps({**config, "r": rank}))
    with pytest.raises(AdapterMismatch, match="shape"):
        await engine_of({**folders, Role.DEEP_REASONER: wrong}).start()
    assert (await engine.generate(ask())).text


async def test_weights_that_are_missing_are_refused(folders, tmp_path):
    wrong = shutil.copytree(folders[Role.DEEP_REASONER], tmp_path / "wrong")
    (wrong / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterMismatch, match=WEIGHTS_FILE):
        await engine_of({Role.DEEP_REASONER: wrong}).start()


async def test_a_prompt_that_is_too_long_is_refused_and_the_engine_still_answers(engine):
    with pytest.raises(EngineError, match="max_model_len"):
        await engine.generate(ask(question="apples " * 300))
    assert (await engine.generate(ask())).text


async def test_a_cancelled_request_leaves_the_engine_answering(engine):
    task = asyncio.create_task(engine.generate(ask(seed=3)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await engine.generate(ask(seed=3))).text
    await engine.check()


def solving(engine, *, rule, width, agreed_at_once=False):
    """Mutual feedback on the real engine; `agreed_at_once` writes the first round in advance."""
    policy = Policy(rule=rule, max_rounds=3)
    waves = Waves(max_rounds=width)

    async def sample(one: Ask) -> Sampled:
        if agreed_at_once and one.round_index == 0:
            return Sampled(text="--> 7 END")
        seed = generation_seed(1, question=QUESTION, ask=one)
        completion = await engine.generate(
            GenerationRequest(question=QUESTION, role=one.role, knowledge=one.knowledge, seed=seed)
        )
        return Sampled(text=completion.text, num_tokens=completion.num_tokens)

    generator = mutual_feedback(QUESTION, policy=policy, checker=AnswerChecker(), waves=waves)
    return run_async(generator, sample=sample)


async def test_waves_write_the_same_transcript(engine):
    lazy = await solving(engine, rule="majority", width=1)
    waved = await solving(engine, rule="majority", width=3)
    assert waved == lazy
    assert waved.num_generations == 9


async def test_rounds_that_are_not_needed_are_aborted_in_the_engine(engine):
    transcript = await solving(engine, rule="paper", width=3, agreed_at_once=True)
    assert (transcript.answer, len(transcript.rounds)) == ("7", 1)
    assert transcript.effort.num_cut_short == 2
    assert not engine.engine.output_processor.has_unfinished_requests()
    assert (await engine.generate(ask())).text


async def test_a_caller_that_leaves_during_the_start_leaves_the_engine_whole(folders):
    engine = engine_of(folders)
    first = asyncio.create_task(engine.generate(ask()))
    while engine.engine is None:
        await asyncio.sleep(0)
    first.cancel()
    assert (await engine.generate(ask())).text
    assert first.cancelled()
    await engine.aclose()


async def test_any_turn_is_completed_by_the_base_alone(engine):
    first = await engine.complete("What is 2 + 3?", seed=1)
    assert first == await engine.complete("What is 2 + 3?", seed=1)
    assert first.finish_reason in ("stop", "length")


async def test_a_model_that_is_not_there_is_a_clear_error(folders, tmp_path):
    missing = ModelConfig(path=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot load the model"):
        await engine_of(folders, student=missing).start()

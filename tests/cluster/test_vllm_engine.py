"""The real engine: one base, three adapters with random weights, on the CPU."""

import asyncio
import dataclasses
import json
import logging
import shutil
from logging.handlers import MemoryHandler

import pytest
import pytest_asyncio
from small import adapter_folder

from lorid.artifacts.adapters import WEIGHTS_FILE
from lorid.config import ModelConfig
from lorid.engines.base import GenerationRequest
from lorid.engines.settings import CPU_BLOCK_TOKENS
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
    root = tmp_path_factory.mktemp("adapters")
    return {role: adapter_folder(root / role, seed=n) for n, role in enumerate(Role)}


SAMPLING = demo().sampling.model_copy(update={"max_new_tokens": 24})


def engine_of(**changes) -> VllmEngine:
    config = demo()
    arguments = {
        "student": config.student,
        "sampling": SAMPLING,
        "engine": config.engine.model_copy(update={"max_model_len": 256}),
        "num_triples": 2,
    }
    return VllmEngine(**arguments | changes)


async def load(engine, name, adapters):
    await engine.load(name, adapters=adapters, sampling=SAMPLING)


@pytest.fixture(scope="module")
def replica_log(tmp_path_factory):
    """A logger as a replica of Ray Serve has it, from before vLLM comes, and its file."""
    path = tmp_path_factory.mktemp("logs") / "replica.log"
    logger = logging.getLogger("test_vllm_engine.replica")
    handler = MemoryHandler(capacity=1, target=logging.FileHandler(path))
    logger.addHandler(handler)
    yield logger, path
    logger.removeHandler(handler)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folders, replica_log):
    """A started engine for all tests of this file."""
    started = engine_of()
    await load(started, "first", folders)
    yield started
    await started.aclose()


def ask(
    role=Role.INTUITIVE_REASONER, *, seed=1, question=QUESTION, triple="first"
) -> GenerationRequest:
    knowledge = "Add." if role is Role.DEEP_REASONER else None
    return GenerationRequest(
        question=question, role=role, triple=triple, knowledge=knowledge, seed=seed
    )


async def test_what_a_replica_says_reaches_its_log_beside_vllm(engine, replica_log):
    logger, path = replica_log
    for line in ("one", "two"):
        logger.warning(line)
    assert path.read_text() == "one\ntwo\n"
    (handler,) = logger.handlers
    assert not handler.buffer


async def test_every_adapter_is_in_use(engine):
    probes = await engine.probe("first")
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


async def test_one_text_among_many_is_the_text_that_is_written_alone(engine):
    """How far results repeat: float32 on the CPU, every word, in a batch of 64."""
    questions = [f"Tom has {n} apples and finds 4 more apples. How many?" for n in range(64)]
    asked = [
        ask(role, seed=n, question=question)
        for n, (question, role) in enumerate(zip(questions, 22 * list(Role), strict=False))
    ]
    together = await asyncio.gather(*(engine.generate(one) for one in asked))
    for number in (0, 31, 63):
        assert await engine.generate(asked[number]) == together[number]


async def test_a_prompt_that_was_read_before_is_not_read_again(engine):
    """Its whole blocks, that is: a question's rounds share them, and so do short prompts."""
    question = "Ann has 31 pears and buys 5 more pears. Then she eats 2. How many are left?"
    first = await engine.generate(ask(seed=1, question=question))
    again = await engine.generate(ask(seed=2, question=question))
    assert first.num_cached_tokens < again.num_cached_tokens < again.num_prompt_tokens
    assert again.num_prompt_tokens - again.num_cached_tokens <= CPU_BLOCK_TOKENS


async def test_a_text_comes_in_pieces_and_within_its_bound(engine):
    pieces: list[str] = []
    whole = await engine.generate(ask(seed=7), on_text=pieces.append)
    assert whole == await engine.generate(ask(seed=7))
    assert "".join(pieces).rstrip() == whole.text
    assert len(pieces) > 3
    short = await engine.generate(dataclasses.replace(ask(seed=7), max_tokens=5))
    assert (short.num_tokens, short.finish_reason) == (5, "length")
    assert whole.text.startswith(short.text)


async def test_the_base_stays_itself_among_requests_with_adapters(engine):
    await expect_base_is_itself(engine, ["first"])


@pytest.mark.parametrize("is_prefill", [True, False])
async def test_products_by_groups_are_what_each_tokens_own_adapter_gives(is_prefill):
    import torch
    from vllm.lora.layers import LoRAMapping

    from lorid.engines.cpu_lora import GroupedLora

    torch.manual_seed(1)
    widths, rank, ids = (24, 8), 4, (2, 2, 0, 3, 1, 1, 0, 3)
    first = tuple(torch.randn(4, 1, rank, 16) for _ in widths)
    second = tuple(torch.randn(4, 1, width, rank) for width in widths)
    x, y = torch.randn(len(ids), 16), torch.randn(len(ids), sum(widths))
    # One leaves a part alone, one has a lower rank than there is room for.
    second[1][1].zero_()
    first[0][2, 0, 3:] = 0
    second[1][2, 0, :, 2:] = 0
    lora = GroupedLora(64, 8, torch.device("cpu"))
    mapping = LoRAMapping(index_mapping=ids, prompt_mapping=ids, is_prefill=is_prefill)
    # vLLM's slots hold adapters in any order; the last one is empty.
    slots = [3, 1, 2, None]
    lora.update_metadata(mapping, slots, 4, 100)
    written = y.clone()
    lora.add_lora_linear(written, x, first, second, 2.0, widths)
    for row, number in enumerate(ids):
        expected = y[row]
        if number:
            slot = slots.index(number)
            added = [
                2.0 * x[row] @ a[slot, 0].T @ b[slot, 0].T
                for a, b in zip(first, second, strict=True)
            ]
            expected = expected + torch.cat(added)
        torch.testing.assert_close(written[row], expected)
    # Nothing at all, not only little.
    assert torch.equal(written[2], y[2])


async def likelihood(engine, role, triple) -> float:
    """Of a greedy text by a role of a triple; role None is the base."""
    prompt = encode_prompt(
        engine.tokenizer, family="tokenizer", role=Role.INTUITIVE_REASONER, question=QUESTION
    )
    greedy = SAMPLING.model_copy(update={"temperature": 0.0})
    adapter = None if role is None else engine.triples[triple].requests[role]
    found = await engine._sampled(prompt, adapter=adapter, seed=0, sampling=greedy)
    return found.outputs[0].cumulative_logprob


async def expect_base_is_itself(engine, triples):
    alone = await likelihood(engine, None, None)
    asked = [(role, triple) for triple in triples for role in Role]
    *others, base = await asyncio.gather(
        *(likelihood(engine, role, triple) for role, triple in (*asked, (None, None)))
    )
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
        await load(engine, "wrong", {**folders, Role.DEEP_REASONER: wrong})
    assert (await engine.generate(ask())).text


async def test_weights_that_are_missing_are_refused(engine, folders, tmp_path):
    wrong = shutil.copytree(folders[Role.DEEP_REASONER], tmp_path / "wrong")
    (wrong / WEIGHTS_FILE).unlink()
    with pytest.raises(AdapterMismatch, match=WEIGHTS_FILE):
        await load(engine, "wrong", {**folders, Role.DEEP_REASONER: wrong})


async def test_a_second_triple_comes_answers_beside_the_first_and_goes(engine, folders, tmp_path):
    """Many times over: vLLM's slots are used again, and the last one stays empty on the CPU."""
    before = await engine.generate(ask(seed=5))
    roles = list(Role)
    turned = dict(zip(roles, [folders[role] for role in roles[1:] + roles[:1]], strict=True))
    for number in range(3):
        await load(engine, f"second {number}", turned)
        assert (await engine.probe(f"second {number}"))[str(roles[0])] == (
            await engine.probe("first")
        )[str(roles[1])]
        await expect_base_is_itself(engine, ["first", f"second {number}"])
        with pytest.raises(EngineError, match="holds 2"):
            await load(engine, "third", folders)
        old, new = await asyncio.gather(
            engine.generate(ask(seed=5)), engine.generate(ask(seed=5, triple=f"second {number}"))
        )
        assert old == before
        assert new.text
        await engine.unload(f"second {number}")
        with pytest.raises(AdapterMismatch, match="not loaded"):
            await engine.generate(ask(triple=f"second {number}"))
    assert len(await engine.engine.list_loras()) == 3
    assert await engine.generate(ask(seed=5)) == before


async def test_a_higher_rank_than_the_engine_holds_is_refused(engine, folders, tmp_path):
    higher = adapter_folder(tmp_path / "higher", seed=9, rank=16)
    with pytest.raises(AdapterMismatch, match=r"serving\.max_adapter_rank=16"):
        await load(engine, "higher", {**folders, Role.DEEP_REASONER: higher})
    assert len(await engine.engine.list_loras()) == 3


async def test_a_load_that_fails_half_way_leaves_nothing(engine, folders, tmp_path):
    """vLLM's own refusal stands in for what our checks do not know."""
    odd = shutil.copytree(folders[Role.DEEP_REASONER], tmp_path / "odd")
    adapters = {**folders, Role.DEEP_REASONER: odd}
    real = engine.engine.add_lora

    async def refuse_the_last(request):
        if request.lora_path == str(odd):
            raise ValueError("no")
        return await real(request)

    engine.engine.add_lora = refuse_the_last
    try:
        with pytest.raises(AdapterMismatch, match="vLLM refuses"):
            await load(engine, "half", adapters)
    finally:
        engine.engine.add_lora = real
    assert len(await engine.engine.list_loras()) == 3


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
            GenerationRequest(
                question=QUESTION,
                role=one.role,
                triple="first",
                knowledge=one.knowledge,
                seed=seed,
            )
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
    engine = engine_of()
    first = asyncio.create_task(load(engine, "first", folders))
    while engine.engine is None:
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await load(engine, "first", folders)
    assert (await engine.generate(ask())).text
    assert len(await engine.engine.list_loras()) == 3
    await engine.aclose()


async def test_any_turn_is_completed_by_the_base_alone(engine):
    first = await engine.complete("What is 2 + 3?", seed=1)
    assert first == await engine.complete("What is 2 + 3?", seed=1)
    assert first.finish_reason in ("stop", "length")


async def test_a_model_that_is_not_there_is_a_clear_error(folders, tmp_path):
    missing = ModelConfig(path=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="cannot load the model"):
        await load(engine_of(student=missing), "first", folders)

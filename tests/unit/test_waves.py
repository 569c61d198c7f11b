"""Drivers and waves: what is decided never depends on who samples, when, or how far ahead."""

import asyncio
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import FULL_TAPES, NUM_ROUNDS, tape

from lorid.errors import DataError
from lorid.method.drivers import BatchLoad, run_async, run_batch, run_sync
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, Transcript, mutual_feedback
from lorid.method.roles import Role
from lorid.method.stopping import LIVE_RULES, Outcome, Policy, Tally
from lorid.method.waves import Waves, rounds_to_agreement

CHECKER = AnswerChecker()
FOREVER_S = 30


def begin(rule="paper", *, width=1, max_rounds=NUM_ROUNDS, load=lambda: 0.0, question="q"):
    policy = Policy(rule=rule, max_rounds=max_rounds, tau=0.9)
    waves = Waves(max_rounds=width, load=load)
    return mutual_feedback(question, policy=policy, checker=CHECKER, waves=waves)


def run_in_any_order(generator, *, sample, rng: random.Random) -> Transcript:
    """A driver whose texts come in any order, any number at a time."""
    try:
        waiting = list(next(generator))
        while True:
            rng.shuffle(waiting)
            count = rng.randint(1, len(waiting))
            come, waiting = waiting[:count], waiting[count:]
            waiting += generator.send([(ask, sample(ask)) for ask in come])
    except StopIteration as stop:
        return stop.value


WIDTHS = st.integers(1, NUM_ROUNDS + 2)
SEEDS = st.integers(0, 2**32)


@settings(max_examples=30)
@given(FULL_TAPES, FULL_TAPES, WIDTHS, SEEDS)
def test_every_driver_width_and_order_gives_the_same_transcript(intuitive, deep, width, seed):
    sample, rng = tape(intuitive, deep), random.Random(seed)
    lazy = {rule: run_sync(begin(rule), sample=sample) for rule in LIVE_RULES}

    async def sampled(ask: Ask) -> Sampled:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        return sample(ask)

    async def all_async() -> list[Transcript]:
        generators = [begin(rule, width=width, load=rng.random) for rule in LIVE_RULES]
        return await asyncio.gather(*(run_async(one, sample=sampled) for one in generators))

    batch = run_batch(
        [(rule, begin(rule, width=width, load=rng.random)) for rule in LIVE_RULES],
        sample_many=lambda asked: [sample(ask) for _, ask in asked],
        max_asks=rng.randint(1, 9),
    )
    for rule, driven, batched in zip(LIVE_RULES, asyncio.run(all_async()), batch, strict=True):
        ordered = run_sync(begin(rule, width=width), sample=sample)
        anyhow = run_in_any_order(begin(rule, width=width), sample=sample, rng=rng)
        # Equality covers rounds, outcome, answer, confidence and the texts used, not the effort.
        assert lazy[rule] == ordered == anyhow == driven == batched
        assert lazy[rule].num_wasted == ordered.num_wasted == 0
        for one in (anyhow, driven, batched):
            assert one.effort.num_used == len(one.used) == lazy[rule].num_generations
            assert one.num_generations == one.effort.num_used + one.num_wasted
            assert one.num_wasted <= 3 * (width - 1)
            assert one.attempts_row(problem_id="p") == lazy[rule].attempts_row(problem_id="p")


def test_transcripts_that_decide_otherwise_are_not_equal():
    one = run_sync(begin(max_rounds=2), sample=tape(["1", "2"], ["3", "4"]))
    assert one != run_sync(begin(max_rounds=2), sample=tape(["1", "2"], ["3", "5"]))


@pytest.mark.parametrize(("load", "started"), [(0.0, 2), (0.5, 2), (0.74, 2), (0.75, 1), (1.0, 1)])
def test_a_busy_engine_narrows_the_wave(load, started):
    # Without any answer yet the guess is two rounds.
    asks = next(begin(width=4, load=lambda: load))
    assert {ask.round_index for ask in asks} == set(range(started))


def test_what_is_certainly_needed_starts_at_once():
    def rounds(rule, width):
        return len({ask.round_index for ask in next(begin(rule, width=width))})

    assert rounds("majority", NUM_ROUNDS + 3) == NUM_ROUNDS
    assert rounds("majority", 3) == 3
    assert rounds("intuitive-only", 9) == rounds("deep-only", 9) == 1


def test_the_less_they_agree_the_wider_the_wave():
    def tally(*answers):
        made = Tally()
        for intuitive, deep in answers:
            made.add(intuitive=intuitive, deep=deep)
        return made

    none, scattered = tally(), tally((0, 1), (2, 3), (4, 5))
    agreeing = tally((0, 1), (0, 1), (0, 1))
    widths = [rounds_to_agreement(one) for one in (agreeing, none, scattered)]
    assert widths == sorted(set(widths))
    assert widths[0] >= 1


def never(ask: Ask) -> asyncio.Future:
    return asyncio.get_running_loop().create_future()


async def test_what_is_not_needed_any_more_is_cancelled_and_counted():
    cancelled = []

    async def sample(ask: Ask) -> Sampled:
        if ask.round_index == 0:
            return tape(["1"], ["1"])(ask)
        try:
            return await never(ask)
        except asyncio.CancelledError:
            cancelled.append((ask.role, ask.round_index))
            raise

    transcript = await asyncio.wait_for(run_async(begin(width=2), sample=sample), FOREVER_S)
    assert (transcript.outcome, transcript.answer) == (Outcome.AGREED, "1")
    assert sorted(cancelled) == [(Role.INTUITIVE_REASONER, 1), (Role.KNOWLEDGE_GENERATOR, 1)]
    assert (transcript.num_generations, transcript.num_wasted) == (5, 2)
    assert transcript.effort.num_cut_short == 2
    assert transcript.num_tokens == 13


async def test_a_text_that_came_for_nothing_is_counted_with_its_tokens():
    second = asyncio.Event()

    async def sample(ask: Ask) -> Sampled:
        if ask.round_index == 0:
            await second.wait()
        elif ask.role is Role.DEEP_REASONER:
            second.set()
        return tape(["1"], ["1"])(ask)

    transcript = await asyncio.wait_for(run_async(begin(width=2), sample=sample), FOREVER_S)
    assert len(transcript.rounds) == 1
    assert (transcript.effort.num_used, transcript.num_wasted) == (3, 3)
    assert transcript.num_tokens == 2 * 13


async def test_an_error_in_a_round_that_is_not_needed_does_not_matter():
    failed = asyncio.Event()

    async def sample(ask: Ask) -> Sampled:
        if ask.round_index == 1:
            failed.set()
            raise DataError("speculated")
        await failed.wait()
        return tape(["1"], ["1"])(ask)

    transcript = await asyncio.wait_for(run_async(begin(width=2), sample=sample), FOREVER_S)
    assert (transcript.answer, len(transcript.rounds)) == ("1", 1)
    assert transcript.num_wasted == 2


@pytest.mark.parametrize("width", [1, 2, 5])
async def test_an_error_in_a_needed_round_comes_out_wherever_it_came_first(width):
    async def sample(ask: Ask) -> Sampled:
        if ask.round_index == 1 and ask.role is Role.KNOWLEDGE_GENERATOR:
            raise DataError("round 1")
        return tape(["1", "2"], ["3", "4"])(ask)

    with pytest.raises(DataError, match="round 1"):
        await asyncio.wait_for(run_async(begin(width=width), sample=sample), FOREVER_S)


async def test_a_failing_text_cancels_the_others():
    cancelled = []

    async def sample(ask: Ask) -> Sampled:
        if (ask.role, ask.round_index) == (Role.INTUITIVE_REASONER, 0):
            raise DataError("broken")
        try:
            return await never(ask)
        except asyncio.CancelledError:
            cancelled.append(ask.round_index)
            raise

    with pytest.raises(DataError, match="broken"):
        await asyncio.wait_for(run_async(begin(width=2), sample=sample), FOREVER_S)
    assert sorted(cancelled) == [0, 1, 1]


async def test_a_cancelled_question_cancels_all_of_its_texts():
    begun, cancelled = asyncio.Event(), []

    async def sample(ask: Ask) -> Sampled:
        if ask.round_index == 1 and ask.role is Role.KNOWLEDGE_GENERATOR:
            begun.set()
        try:
            return await never(ask)
        except asyncio.CancelledError:
            cancelled.append(ask)
            raise

    question = asyncio.create_task(run_async(begin(width=2), sample=sample))
    await asyncio.wait_for(begun.wait(), FOREVER_S)
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    assert len(cancelled) == 4


def test_errors_come_out_of_the_other_drivers_too():
    def broken(_: object) -> Sampled:
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        run_sync(begin(), sample=broken)
    with pytest.raises(DataError, match="broken"):
        run_batch([("q", begin())], sample_many=broken, max_asks=4)
    with pytest.raises(ValueError, match="zip"):
        run_batch([("q", begin())], sample_many=lambda asked: [], max_asks=4)
    with pytest.raises(ValueError, match="max_asks"):
        run_batch([], sample_many=broken, max_asks=0)


def test_batches_stay_full_and_transcripts_come_in_order():
    # Question n agrees in its round n + 1.
    answers = {f"q{n}": tape([*"abcdefgh"[:n], "x"], [*"ijklmnop"[:n], "x"]) for n in range(6)}
    sizes = []

    def sample_many(asked: list[tuple[str, Ask]]) -> list[Sampled]:
        sizes.append(len(asked))
        return [answers[question](ask) for question, ask in asked]

    questions = list(answers) * 10
    load = BatchLoad()
    generators = (
        (name, begin(question=name, width=3, max_rounds=9, load=load)) for name in questions
    )
    transcripts = run_batch(generators, sample_many=sample_many, max_asks=8, load=load)
    assert [one.question for one in transcripts] == questions
    assert [len(one.rounds) for one in transcripts] == [int(name[1:]) + 1 for name in questions]
    assert max(sizes) == 8
    # While there are questions to begin every batch is full; the rest is the last ones' tail.
    assert sizes[: sizes.index(min(sizes))].count(8) > 0.9 * sizes.index(min(sizes))
    assert sum(sizes) == sum(one.num_generations for one in transcripts)


def test_an_empty_batch_asks_nothing():
    assert run_batch([], sample_many=lambda asked: pytest.fail("asked"), max_asks=4) == []


async def test_the_loop_goes_on_while_formulas_are_compared():
    went_on = threading.Event()

    class Slow(AnswerChecker):
        def equal(self, a: str, b: str) -> bool:
            assert went_on.wait(FOREVER_S)
            return True

    async def sample(ask: Ask) -> Sampled:
        asyncio.get_running_loop().call_later(0.01, went_on.set)
        is_deep = ask.role is Role.DEEP_REASONER
        return Sampled(text="--> 2\\sqrt{2} END" if is_deep else "--> \\sqrt{8} END")

    generator = mutual_feedback("q", policy=Policy(rule="paper"), checker=Slow())
    transcript = await run_async(generator, sample=sample)
    assert (transcript.answer, transcript.outcome) == ("\\sqrt{8}", Outcome.AGREED)

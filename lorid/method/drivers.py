"""Who samples for mutual feedback: one text after the other, a coroutine, or batches.

    run_sync(generator, sample=ask_model)
    await run_async(generator, sample=ask_engine)
    run_batch(((q, mutual_feedback(q, ...)) for q in questions), sample_many=ask_all, max_asks=256)

All of them decide alike, at any width of the waves. They differ in what is wasted: `run_sync`
wastes nothing, since it samples the earliest round first.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from lorid.method.equivalence import is_plain
from lorid.method.feedback import (
    Ask,
    MutualFeedback,
    Reply,
    Sampled,
    Transcript,
    attempt_from,
)
from lorid.method.roles import Role

Step = tuple[Ask, ...] | Transcript


def run_sync(generator: MutualFeedback, *, sample: Callable[[Ask], Sampled]) -> Transcript:
    """Drive the generator with a function that samples one text."""

    def reply(ask: Ask) -> Reply:
        try:
            return ask, sample(ask)
        except Exception as error:
            return ask, error

    waiting: list[Ask] = []
    step = _advanced(generator, None)
    while not isinstance(step, Transcript):
        waiting += step
        ask = min(waiting, key=lambda ask: ask.round_index)
        waiting.remove(ask)
        step = _advanced(generator, [reply(ask)])
    return step


async def run_async(
    generator: MutualFeedback, *, sample: Callable[[Ask], Awaitable[Sampled]]
) -> Transcript:
    """Drive the generator with a coroutine; all asks that may start are sampled at the same time.

    When the question is decided, one of its needed asks fails, or this call is cancelled, whatever
    is still being sampled is cancelled, and has ended when this returns. Answers that are not all
    plain numbers are compared in a thread: formulas may hold up everything else on the loop.
    """

    async def reply(ask: Ask) -> Reply:
        try:
            return ask, await sample(ask)
        except Exception as error:
            return ask, error

    # A dictionary for its order: replies are handed over in the order of their asks.
    running: dict[asyncio.Task[Reply], None] = {}
    steps = _Steps(generator)
    try:
        step = await steps.next(None)
        while not isinstance(step, Transcript):
            running |= dict.fromkeys(asyncio.create_task(reply(ask)) for ask in step)
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            replies = [task.result() for task in running if task in done]
            for task in done:
                del running[task]
            step = await steps.next(replies)
        return _with_leftovers(step, running)
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


class _Steps:
    """Advances a generator on the loop, or in a thread from the first answer that is no number.

    Most answers are numbers, and a way through a thread and back costs up to a millisecond or more
    on a busy machine: more than everything else that mutual feedback does.
    """

    def __init__(self, generator: MutualFeedback) -> None:
        self.generator, self.are_plain = generator, True

    async def next(self, replies: Sequence[Reply] | None) -> Step:
        """The next step."""
        self.are_plain = self.are_plain and all(map(_is_plain, replies or ()))
        if self.are_plain:
            return _advanced(self.generator, replies)
        return await asyncio.to_thread(_advanced, self.generator, replies)


def _is_plain(reply: Reply) -> bool:
    """Whether nothing in it takes long to compare with plain numbers."""
    ask, sampled = reply
    if ask.role is Role.KNOWLEDGE_GENERATOR or isinstance(sampled, Exception):
        return True
    answer = attempt_from(sampled).answer
    return answer is None or is_plain(answer)


@dataclass(kw_only=True)
class BatchLoad:
    """How full the batch of `run_batch` is, for the `Waves` of its generators.

    It is full while questions remain to be begun. After that more and more of it is free for rounds
    that are only likely to be needed: they take the places of questions that have ended.
    """

    share: float = 1.0

    def __call__(self) -> float:
        """From 0, nothing waits, to 1, the batch is full."""
        return self.share


def run_batch(
    questions: Iterable[tuple[str, MutualFeedback]],
    *,
    sample_many: Callable[[list[tuple[str, Ask]]], Sequence[Sampled]],
    max_asks: int,
    load: BatchLoad | None = None,
) -> list[Transcript]:
    """Drive many generators with a function that samples a batch of at most `max_asks` texts.

    Each pair is a question and its generator; they are taken as the batch has room for them, and
    transcripts come in their order. Every call gets as many asks as there are. What `sample_many`
    raises comes out.

    Raises:
        ValueError: `max_asks` is below 1, or `sample_many` returned another number of texts.
    """
    if max_asks < 1:
        raise ValueError(f"max_asks is {max_asks}: give 1 or more")
    batch = _Batch(iter(questions), max_asks=max_asks, load=load or BatchLoad())
    while asked := batch.next_asks():
        texts = sample_many([(batch.begun[number].question, ask) for number, ask in asked])
        by_question: dict[int, list[Reply]] = {}
        for (number, ask), sampled in zip(asked, texts, strict=True):
            by_question.setdefault(number, []).append((ask, sampled))
        for number, replies in by_question.items():
            batch.advance(number, replies)
    return [batch.transcripts[number] for number in range(len(batch.transcripts))]


@dataclass(kw_only=True)
class _Begun:
    question: str
    generator: MutualFeedback
    waiting: deque[Ask] = field(default_factory=deque[Ask])


class _Batch:
    def __init__(
        self, questions: Iterator[tuple[str, MutualFeedback]], *, max_asks: int, load: BatchLoad
    ) -> None:
        self.questions, self.max_asks, self.load = questions, max_asks, load
        self.begun: dict[int, _Begun] = {}
        self.transcripts: dict[int, Transcript] = {}
        self.num_begun = 0
        self.following = next(questions, None)

    def next_asks(self) -> list[tuple[int, Ask]]:
        """The next batch; the asks of questions that were begun earlier come first."""
        waiting = sum(len(one.waiting) for one in self.begun.values())
        while waiting < self.max_asks and self.following is not None:
            question, generator = self.following
            self.following = next(self.questions, None)
            number, self.num_begun = self.num_begun, self.num_begun + 1
            self.begun[number] = _Begun(question=question, generator=generator)
            self.advance(number, None)
            waiting += len(self.begun[number].waiting)
        asked: list[tuple[int, Ask]] = []
        for number, one in self.begun.items():
            while one.waiting and len(asked) < self.max_asks:
                asked.append((number, one.waiting.popleft()))
        return asked

    def advance(self, number: int, replies: Sequence[Reply] | None) -> None:
        """Hand replies to a question's generator, and note what it asks or decided."""
        one = self.begun[number]
        self._measure()
        step = _advanced(one.generator, replies)
        if isinstance(step, Transcript):
            self.transcripts[number] = step
            del self.begun[number]
        else:
            # Earlier rounds first: later ones may not be needed any more when their turn comes.
            one.waiting = deque(sorted((*one.waiting, *step), key=lambda ask: ask.round_index))

    def _measure(self) -> None:
        waiting = sum(len(one.waiting) for one in self.begun.values())
        self.load.share = 1.0 if self.following is not None else min(1.0, waiting / self.max_asks)


def _advanced(generator: MutualFeedback, replies: Sequence[Reply] | None) -> Step:
    try:
        return next(generator) if replies is None else generator.send(replies)
    except StopIteration as stop:
        return stop.value


def _with_leftovers(transcript: Transcript, running: Iterable[asyncio.Task[Reply]]) -> Transcript:
    """The transcript with the texts that were under way when it was decided."""
    num_running = 0
    finished: list[Sampled] = []
    for task in running:
        num_running += 1
        if task.done() and not task.cancelled() and task.exception() is None:
            _, sampled = task.result()
            finished += [sampled] if isinstance(sampled, Sampled) else []
    num_cut_short = num_running - len(finished)
    effort = transcript.effort.with_leftovers(finished, num_cut_short=num_cut_short)
    return replace(transcript, effort=effort)

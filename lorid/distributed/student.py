"""StudentEngine, the replica: its engine, the triple that it serves, the questions in work.

      question --> slots --> lease of the triple --> run_async(mutual_feedback) --> texts --> engine
                     |                                                                |
                     '-- single questions first, items of batches their share --------'

Slots are shared twice (`lorid.distributed.sharing`): questions, so that what has begun also ends,
and texts, so that a batch gives way between two texts and not only between two questions.
Cancelling a call ends its texts in the engine.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from lorid.api import AttemptEvent, Fact, RoundEvent, SolveRequest, TripleCard
from lorid.config import EndpointConfig
from lorid.distributed.bodies import Answered, attempt_event, round_body
from lorid.distributed.logs import without_serves_lines
from lorid.distributed.sharing import SharedSlots, TextSlots
from lorid.distributed.sources import TripleSource
from lorid.distributed.switching import LoadedTriple, TripleSwitch
from lorid.distributed.tracing import Carrier, Tracing, told
from lorid.engines.base import GenerationRequest, StudentTextEngine, TextSink
from lorid.method.drivers import run_async
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import (
    Ask,
    Round,
    Sampled,
    Transcript,
    generation_seed,
    mutual_feedback,
)
from lorid.method.roles import Role
from lorid.method.waves import Waves

EngineFactory = Callable[[EndpointConfig], StudentTextEngine]
SolveEvent = AttemptEvent | RoundEvent
Watch = Callable[[SolveEvent], None]
Content = TypeVar("Content", Transcript, Sampled)


class StudentEngine:
    """What the ingress calls."""

    def __init__(
        self, config_json: str, factory: EngineFactory, source: TripleSource, follows: bool
    ) -> None:
        without_serves_lines()
        self.config = EndpointConfig.model_validate_json(config_json)
        self.checker = AnswerChecker()
        serving, engine = self.config.serving, self.config.engine
        # A question has two texts in flight, or more in waves while the engine has room for them.
        # Where roles have engines of their own, this replica is there for its share of these.
        num_engines = serving.engines_of_a_driver
        self.slots = SharedSlots(
            num_engines * serving.max_concurrent_questions, batch_share=serving.batch_share
        )
        self.texts = TextSlots(
            num_engines * engine.max_num_seqs,
            roles_apart=serving.roles_apart,
            batch_share=serving.batch_share,
        )
        self.num_questions, self.num_texts = 0, 0
        self.engine = factory(self.config)
        self.tracing = Tracing(serving.otlp_endpoint)
        poll_s = serving.alias_poll_s if follows else None
        self.triples = TripleSwitch(self.engine, source, poll_s=poll_s)

    async def solve(
        self,
        request: SolveRequest,
        *,
        is_item: bool = False,
        watch: Watch | None = None,
        trace: Carrier | None = None,
    ) -> Answered[Transcript]:
        """Answer one question by mutual feedback, all of its rounds by one triple."""

        async def solve(triple: LoadedTriple) -> Transcript:
            return await self._solve(request, triple=triple, is_item=is_item, watch=watch)

        return await self._in_turn(solve, is_item=is_item, trace=trace)

    async def solve_stream(
        self, request: SolveRequest, trace: Carrier | None = None
    ) -> AsyncIterator[SolveEvent | Answered[Transcript]]:
        """Each text as it ends, each round as it is judged, and the answer."""

        def solve(watch: Watch) -> Awaitable[Answered[Transcript]]:
            return self.solve(request, watch=watch, trace=trace)

        async for event in as_they_come(solve):
            yield event

    async def answer_alone(
        self,
        question: str,
        role: str | None,
        seed: int | None,
        max_tokens: int | None = None,
        trace: Carrier | None = None,
        *,
        is_item: bool = False,
        on_text: TextSink | None = None,
    ) -> Answered[Sampled]:
        """One text by one role, or by the base itself; the deep reasoner's knowledge is drawn."""

        async def answer(triple: LoadedTriple) -> Sampled:
            chosen = triple.config.seed if seed is None else seed
            write = _Writer(self, question, seed=chosen, triple=triple.address, is_item=is_item)
            knowledge = None
            if role == Role.DEEP_REASONER:
                drawn = await write(Ask(role=Role.KNOWLEDGE_GENERATOR, round_index=0))
                knowledge = drawn.text
            speaker = Role(role) if role else None
            ask = Ask(role=speaker or Role.INTUITIVE_REASONER, round_index=0, knowledge=knowledge)
            return await write(ask, is_base=speaker is None, max_tokens=max_tokens, on_text=on_text)

        return await self._in_turn(answer, is_item=is_item, trace=trace)

    async def answer_alone_stream(
        self,
        question: str,
        role: str | None,
        seed: int | None,
        max_tokens: int | None = None,
        trace: Carrier | None = None,
    ) -> AsyncIterator[str | Answered[Sampled]]:
        """The pieces of a text as they are written, then the whole."""

        def answer(on_text: TextSink) -> Awaitable[Answered[Sampled]]:
            return self.answer_alone(question, role, seed, max_tokens, trace, on_text=on_text)

        async for piece in as_they_come(answer):
            yield piece

    def load(self) -> float:
        """How busy this replica is, from 0 to 1 and beyond: questions by slots, texts by batch."""
        return max(
            self.num_questions / self.slots.num_slots,
            self.num_texts / self.texts.num_slots,
        )

    async def ready(self) -> dict[str, Any]:
        """Load what is not loaded yet; returns `status`."""
        await self.triples.start()
        return await self.status()

    async def status(self) -> dict[str, Any]:
        """Which triple this replica serves, why it does not serve another, and how busy it is."""
        return {
            **self.triples.status(),
            "num_questions": self.num_questions,
            "num_texts": self.num_texts,
        }

    async def card(self) -> TripleCard:
        """What is known of the triple that new questions get, and how they are answered."""
        triple = await self.triples.start()
        sampling, feedback = triple.config.sampling, triple.config.feedback
        facts = [
            *triple.files.facts,
            ("rule", f"`{feedback.rule}`, at most {feedback.max_rounds} rounds"),
            (
                "sampling",
                f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, "
                f"top_k {sampling.top_k}, at most {sampling.max_new_tokens} new tokens",
            ),
        ]
        return TripleCard(
            triple=triple.address, facts=[Fact(name=name, value=value) for name, value in facts]
        )

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check()

    async def _in_turn(
        self,
        work: Callable[[LoadedTriple], Awaitable[Content]],
        *,
        is_item: bool,
        trace: Carrier | None,
    ) -> Answered[Content]:
        self.num_questions += 1
        came = time.monotonic()
        try:
            # The triple is chosen when the question's turn comes: none waits on an old one.
            with self.tracing.span("question", parent=trace) as span:
                with self.texts.expect(is_item=is_item):
                    async with self.slots.take(is_item=is_item), self.triples.lease() as triple:
                        answered = await self._worked(work, triple, came=came)
                about = {"lorid.triple": answered.triple, "lorid.waited_s": answered.waited_s}
                span.set_attributes({**about, **told(answered.answer)})
                return answered
        finally:
            self.num_questions -= 1

    async def _worked(
        self,
        work: Callable[[LoadedTriple], Awaitable[Content]],
        triple: LoadedTriple,
        *,
        came: float,
    ) -> Answered[Content]:
        began = time.monotonic()
        answer = await work(triple)
        return Answered(
            triple=triple.address,
            answer=answer,
            waited_s=began - came,
            worked_s=time.monotonic() - began,
        )

    async def _solve(
        self, request: SolveRequest, *, triple: LoadedTriple, is_item: bool, watch: Watch | None
    ) -> Transcript:
        loop, config = asyncio.get_running_loop(), triple.config
        chosen = config.seed if request.seed is None else request.seed
        write = _Writer(self, request.question, seed=chosen, triple=triple.address, is_item=is_item)

        def judged(index: int, one: Round) -> None:
            # The generator may be advanced in a thread.
            if watch is not None:
                event = RoundEvent(round=index + 1, body=round_body(one))
                loop.call_soon_threadsafe(watch, event)

        async def sample(ask: Ask) -> Sampled:
            sampled = await write(ask)
            if watch is not None:
                watch(attempt_event(ask, sampled))
            return sampled

        generator = mutual_feedback(
            request.question,
            policy=config.feedback.policy(rule=request.rule, max_rounds=request.max_rounds),
            checker=self.checker,
            waves=Waves(max_rounds=config.feedback.max_wave_rounds, load=self.load),
            watch=judged,
        )
        return await run_async(generator, sample=sample)


class _Writer:
    """Samples the texts of one question; `ask` seeds each: it is drawn alike whoever asks."""

    def __init__(
        self,
        student: StudentEngine,
        question: str,
        *,
        seed: int,
        triple: str,
        is_item: bool = False,
    ) -> None:
        self.student, self.question = student, question
        self.seed, self.triple, self.is_item = seed, triple, is_item

    async def __call__(
        self,
        ask: Ask,
        *,
        is_base: bool = False,
        max_tokens: int | None = None,
        on_text: TextSink | None = None,
    ) -> Sampled:
        request = GenerationRequest(
            question=self.question,
            role=None if is_base else ask.role,
            triple=self.triple,
            knowledge=ask.knowledge,
            seed=generation_seed(self.seed, question=self.question, ask=ask),
            max_tokens=max_tokens,
        )
        name = "base" if is_base else ask.role.value
        about = {"lorid.role": name, "lorid.round": ask.round_index + 1}
        with self.student.tracing.span(f"text {name}", attributes=about) as span:
            async with self.student.texts.of(ask.role).take(is_item=self.is_item):
                self.student.num_texts += 1
                try:
                    completion = await self.student.engine.generate(request, on_text=on_text)
                finally:
                    self.student.num_texts -= 1
            sampled = Sampled(
                text=completion.text,
                truncated=completion.finish_reason == "length",
                num_tokens=completion.num_tokens,
                num_prompt_tokens=completion.num_prompt_tokens,
                num_cached_tokens=completion.num_cached_tokens,
            )
            span.set_attributes(told(sampled))
        return sampled


Event = TypeVar("Event")
Final = TypeVar("Final")


async def as_they_come(
    work: Callable[[Callable[[Event], None]], Awaitable[Final]],
) -> AsyncIterator[Event | Final]:
    """What `work` tells the callback that it is given, as it does, then its result.

    Leaving early cancels the work.
    """
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    async def run() -> Final:
        try:
            return await work(events.put_nowait)
        finally:
            # After what other threads have told the loop before.
            asyncio.get_running_loop().call_soon(events.put_nowait, None)

    task = asyncio.create_task(run())
    try:
        while (event := await events.get()) is not None:
            yield event
        yield await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

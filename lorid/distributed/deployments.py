"""The deployment graph on Ray Serve.

      HTTP --> Ingress (FastAPI) --- one call a question --> StudentEngine replica
                                                               |  mutual_feedback, the generator
               round j:   IR attempt ----------.               |  driven by run_async:
                          KG text --> DR attempt+--> agree?    |  IR and KG wait for nothing,
               j < N and no agreement: round j+1               |  DR waits for KG, the rule for both
                                                               `-- vLLM: one base, three adapters,
                                                                   all questions in one batch

The rounds run inside the engine's replica, next to the engine: a question is one Serve call instead
of three a round. Which triple a question gets, and how one follows another, is in
`lorid.distributed.switching`. `build_app` is also what tests run, with a scripted engine in Serve's
local mode.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from lorid.api import SolveRequest
from lorid.artifacts.records import Record
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest, resolve_triple
from lorid.config import EndpointConfig, change_endpoint
from lorid.distributed.bodies import Answered
from lorid.distributed.ingress import Ingress
from lorid.distributed.sources import StoredTriple, TripleSource, parse_address
from lorid.distributed.switching import TripleSwitch
from lorid.engines.base import GenerationRequest, StudentTextEngine
from lorid.method.drivers import run_async
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, Transcript, generation_seed, mutual_feedback
from lorid.method.roles import Role
from lorid.method.waves import Waves

EngineFactory = Callable[[EndpointConfig], StudentTextEngine]
# The one that serves, and the one that comes or drains.
NUM_TRIPLES = 2


class StudentEngine:
    """One engine, the triple that it serves, and the questions that it is answering."""

    def __init__(
        self, config_json: str, factory: EngineFactory, source: TripleSource, follows: bool
    ) -> None:
        self.config = EndpointConfig.model_validate_json(config_json)
        self.checker = AnswerChecker()
        # A question has two texts in flight, or more in waves while the engine has room for them.
        self.slots = asyncio.Semaphore(self.config.serving.max_concurrent_questions)
        self.num_questions, self.num_texts = 0, 0
        self.engine = factory(self.config)
        poll_s = self.config.serving.alias_poll_s if follows else None
        self.triples = TripleSwitch(self.engine, source, poll_s=poll_s)

    async def solve(self, request: SolveRequest) -> Answered[Transcript]:
        """Answer one question by mutual feedback, all of its rounds by one triple."""
        self.num_questions += 1
        try:
            # The triple is chosen when the question's turn comes: none waits on an old one.
            async with self.slots, self.triples.lease() as triple:
                transcript = await self._solve(request, triple=triple.address, config=triple.config)
                return Answered(triple=triple.address, answer=transcript)
        finally:
            self.num_questions -= 1

    async def _solve(
        self, request: SolveRequest, *, triple: str, config: EndpointConfig
    ) -> Transcript:
        generator = mutual_feedback(
            request.question,
            policy=config.feedback.policy(rule=request.rule, max_rounds=request.max_rounds),
            checker=self.checker,
            waves=Waves(max_rounds=config.feedback.max_wave_rounds, load=self.load),
        )
        seed = config.seed if request.seed is None else request.seed

        async def sample(ask: Ask) -> Sampled:
            return await self._sample(request.question, ask.role, ask=ask, seed=seed, triple=triple)

        return await run_async(generator, sample=sample)

    async def answer_alone(
        self, question: str, role: str | None, seed: int | None
    ) -> Answered[Sampled]:
        """One text by one role, or by the base itself; the deep reasoner's knowledge is drawn."""
        async with self.slots, self.triples.lease() as triple:
            chosen = triple.config.seed if seed is None else seed
            knowledge = None
            if role == Role.DEEP_REASONER:
                ask = Ask(role=Role.KNOWLEDGE_GENERATOR, round_index=0)
                drawn = await self._sample(
                    question, ask.role, ask=ask, seed=chosen, triple=triple.address
                )
                knowledge = drawn.text
            speaker = Role(role) if role else None
            ask = Ask(role=speaker or Role.INTUITIVE_REASONER, round_index=0, knowledge=knowledge)
            sampled = await self._sample(
                question, speaker, ask=ask, seed=chosen, triple=triple.address
            )
            return Answered(triple=triple.address, answer=sampled)

    def load(self) -> float:
        """How busy this replica is, from 0 to 1 and beyond: questions by slots, texts by batch."""
        return max(
            self.num_questions / self.config.serving.max_concurrent_questions,
            self.num_texts / self.config.engine.max_num_seqs,
        )

    async def _sample(
        self, question: str, role: Role | None, *, ask: Ask, seed: int, triple: str
    ) -> Sampled:
        """One text; `ask` seeds it, so that a round is drawn the same way whoever asks."""
        self.num_texts += 1
        try:
            completion = await self.engine.generate(
                GenerationRequest(
                    question=question,
                    role=role,
                    triple=triple,
                    knowledge=ask.knowledge,
                    seed=generation_seed(seed, question=question, ask=ask),
                )
            )
        finally:
            self.num_texts -= 1
        return Sampled(
            text=completion.text,
            truncated=completion.finish_reason == "length",
            num_tokens=completion.num_tokens,
            num_prompt_tokens=completion.num_prompt_tokens,
        )

    async def ready(self) -> dict[str, Any]:
        """Load what is not loaded yet; returns `status`."""
        await self.triples.start()
        return self.triples.status()

    async def status(self) -> dict[str, Any]:
        """Which triple this replica serves, and why it does not serve another."""
        return self.triples.status()

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check()


def build_app(
    config: EndpointConfig,
    *,
    source: TripleSource,
    follows: bool = False,
    factory: EngineFactory | None = None,
) -> Application:
    """The graph; `factory` makes the engine (tests inject a scripted one)."""
    ingress: Any = serve.deployment(
        Ingress,
        name="Ingress",
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_timeout_s=5,
    )
    student = student_app(config, source=source, follows=follows, factory=factory)
    return ingress.bind(student, config.serving.max_concurrent_questions)


def student_app(
    config: EndpointConfig,
    *,
    source: TripleSource,
    follows: bool = False,
    factory: EngineFactory | None = None,
) -> Application:
    """The graph without its ingress: one call a question."""
    make = factory or VllmFactory(num_triples=NUM_TRIPLES if follows else 1)
    serving, engine = config.serving, config.engine
    student: Any = serve.deployment(
        StudentEngine,
        name="StudentEngine",
        num_replicas=serving.num_replicas,
        # Questions wait in the replica's own semaphore, where health checks still get through.
        max_ongoing_requests=4 * serving.max_concurrent_questions,
        ray_actor_options={
            "num_cpus": engine.num_cpus,
            "num_gpus": engine.num_gpus * engine.tensor_parallel_size,
        },
        health_check_period_s=10,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=5,
    )
    return student.bind(config.endpoint().model_dump_json(), make, source, follows)


class VllmFactory:
    """Makes the real engine in its replica."""

    def __init__(self, *, num_triples: int) -> None:
        self.num_triples = num_triples

    def __call__(self, config: EndpointConfig) -> StudentTextEngine:
        from lorid.engines.vllm import VllmEngine

        return VllmEngine(
            student=config.student,
            sampling=config.sampling,
            engine=config.engine,
            seed=config.seed,
            num_triples=self.num_triples,
            max_rank=config.serving.max_adapter_rank,
        )


def app_of_triple(config: EndpointConfig, triple: Record) -> Application:
    """The graph of one triple, with the settings of `config` rather than the triple's own."""
    endpoint = config.endpoint()
    store = open_store(endpoint.store)
    sections = ("sampling", "feedback")
    overrides = [f"{name}={getattr(endpoint, name).model_dump_json()}" for name in sections]
    source = StoredTriple(
        store=store.uri,
        base=read_manifest(store, triple).base,
        address=triple.address,
        overrides=[*overrides, f"seed={endpoint.seed}"],
    )
    return build_app(endpoint, source=source)


def app_of_run(run: str, *, overrides: Mapping[str, Any] | None = None) -> Application:
    """The graph of `STORE#NAME`, `STORE#NAME/VERSION` or `STORE@ALIAS`; an alias is followed.

    Raises:
        ConfigError: the address or a change is malformed.
        ArtifactIncomplete: the store holds no such triple.
    """
    address = parse_address(run)
    store = open_store(address.store)
    triple = resolve_triple(store, address.reference)
    manifest = read_manifest(store, triple)
    changes = [f"{key}={value}" for key, value in (overrides or {}).items()]
    config = change_endpoint(manifest.endpoint(store=store.uri), changes, source=triple.address)
    source = StoredTriple(
        store=store.uri,
        base=manifest.base,
        address=triple.address,
        alias=address.alias,
        overrides=changes,
    )
    return build_app(config, source=source, follows=address.alias is not None)

"""The deployment graph on Ray Serve.

      HTTP --> Ingress (FastAPI) --- one call a question --> StudentEngine replica
                                                               |  mutual_feedback, the generator
               round j:   IR attempt ----------.               |  driven by run_async:
                          KG text --> DR attempt+--> agree?    |  IR and KG wait for nothing,
               j < N and no agreement: round j+1               |  DR waits for KG, the rule for both
                                                               `-- vLLM: one base, three adapters,
                                                                   all questions in one batch

The rounds run inside the engine's replica, next to the engine: a question is one Serve call instead
of three a round. `build_app` is also what tests run, with a scripted engine in Serve's local mode.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from lorid.api import SolveRequest
from lorid.artifacts.records import Record, fetch, list_records, load_record
from lorid.artifacts.store import ArtifactStore, open_store
from lorid.config import RunConfig, parse_config
from lorid.distributed.ingress import Ingress
from lorid.engines.base import GenerationRequest, TextEngine
from lorid.errors import ArtifactIncomplete, ConfigError
from lorid.method.drivers import run_async
from lorid.method.equivalence import AnswerChecker
from lorid.method.feedback import Ask, Sampled, Transcript, generation_seed, mutual_feedback
from lorid.method.roles import Role
from lorid.method.waves import Waves

EngineFactory = Callable[[RunConfig], TextEngine]
CONFIG_FILE = "config.yaml"
ADAPTERS_FOLDER = "adapters"


class StudentEngine:
    """One engine, and the questions that it is answering."""

    def __init__(self, config_json: str, factory: EngineFactory) -> None:
        self.config = RunConfig.model_validate_json(config_json)
        self.checker = AnswerChecker()
        # A question has two texts in flight, or more in waves while the engine has room for them.
        self.slots = asyncio.Semaphore(self.config.serving.max_concurrent_questions)
        self.num_questions, self.num_texts = 0, 0
        self.engine = factory(self.config)
        self.probes: Mapping[str, str] | None = None

    async def solve(self, request: SolveRequest) -> Transcript:
        """Answer one question by mutual feedback."""
        generator = mutual_feedback(
            request.question,
            policy=self.config.feedback.policy(rule=request.rule, max_rounds=request.max_rounds),
            checker=self.checker,
            waves=Waves(max_rounds=self.config.feedback.max_wave_rounds, load=self.load),
        )

        async def sample(ask: Ask) -> Sampled:
            return await self._sampled(ask, request.question, role=ask.role, seed=request.seed)

        self.num_questions += 1
        try:
            async with self.slots:
                return await run_async(generator, sample=sample)
        finally:
            self.num_questions -= 1

    async def answer_alone(self, question: str, role: str | None, seed: int | None) -> Sampled:
        """One text by one role, or by the base itself; the deep reasoner's knowledge is drawn."""
        knowledge = None
        if role == Role.DEEP_REASONER:
            drawn = await self.answer_alone(question, Role.KNOWLEDGE_GENERATOR, seed)
            knowledge = drawn.text
        ask = Ask(
            role=Role(role) if role else Role.INTUITIVE_REASONER, round_index=0, knowledge=knowledge
        )
        async with self.slots:
            return await self._sampled(ask, question, role=Role(role) if role else None, seed=seed)

    def load(self) -> float:
        """How busy this replica is, from 0 to 1 and beyond: questions by slots, texts by batch."""
        return max(
            self.num_questions / self.config.serving.max_concurrent_questions,
            self.num_texts / self.config.engine.max_num_seqs,
        )

    async def _sampled(
        self, ask: Ask, question: str, *, role: Role | None, seed: int | None
    ) -> Sampled:
        chosen = self.config.seed if seed is None else seed
        self.num_texts += 1
        try:
            completion = await self.engine.generate(
                GenerationRequest(
                    question=question,
                    role=role,
                    knowledge=ask.knowledge,
                    seed=generation_seed(chosen, question=question, ask=ask),
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

    async def idle_adapters(self) -> list[str]:
        """Roles whose probe equals the base's; none when all three adapters are in use."""
        if self.probes is None:
            self.probes = await self.engine.probe()
        base = self.probes["base"]
        return [str(role) for role in Role if self.probes.get(str(role), base) == base]

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check()


def build_app(
    config: RunConfig, *, triple_address: str = "", factory: EngineFactory | None = None
) -> Application:
    """The graph of a run's triple; `factory` makes the engine (tests inject a scripted one)."""
    make = factory or TripleEngine(store=config.store, address=triple_address)
    ingress: Any = serve.deployment(
        Ingress,
        name="Ingress",
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1},
        graceful_shutdown_timeout_s=5,
    )
    return ingress.bind(student_app(config, factory=make), config.serving.max_concurrent_questions)


def student_app(config: RunConfig, *, factory: EngineFactory) -> Application:
    """The graph without its ingress: one call a question."""
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
    return student.bind(config.model_dump_json(), factory)


class TripleEngine:
    """Makes the real engine in its replica: fetches the triple to this node, then loads it."""

    def __init__(self, *, store: str, address: str) -> None:
        self.store, self.address = store, address

    def __call__(self, config: RunConfig) -> TextEngine:
        from lorid.engines.vllm import VllmEngine

        store = open_store(self.store)
        cache = Path(tempfile.gettempdir()) / f"lorid-triples-{os.getuid()}"
        folder = fetch_once(store, load_record(store, self.address), cache=cache)
        return VllmEngine(
            student=config.student,
            adapters={role: folder / ADAPTERS_FOLDER / role for role in Role},
            sampling=config.sampling,
            engine=config.engine,
            seed=config.seed,
        )


def fetch_once(store: ArtifactStore, record: Record, *, cache: Path) -> Path:
    """The node-local copy of an artifact, whole and verified; replicas of a node may race.

    An existing copy is kept if it still equals the record: another replica may be reading it.

    Raises:
        ConfigError: the cache belongs to another user, who could change what is loaded.
    """
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    if cache.is_symlink() or cache.stat().st_uid != os.getuid():
        raise ConfigError(f"{cache} belongs to another user; set TMPDIR to a folder of your own")
    folder = cache / record.address.replace("/", "-")
    if is_intact(record, folder):
        return folder
    fresh = Path(tempfile.mkdtemp(dir=cache))
    try:
        fetch(store, record, into=fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError:
        # Another replica was first; its copy passed the same checks, or this fails.
        if not is_intact(record, folder):
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def is_intact(record: Record, folder: Path) -> bool:
    """Whether a folder holds each file of a record, unchanged."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    paths = [(folder / entry.path, entry.sha256) for entry in record.files]
    return all(path.is_file() and digest(path) == sha256 for path, sha256 in paths)


def app_of_run(run: str, *, overrides: Mapping[str, Any] | None = None) -> Application:
    """The graph of `STORE#NAME`: the newest triple of that run in that store.

    Raises:
        ConfigError: the address is malformed.
        ArtifactIncomplete: the store holds no such triple.
    """
    store_uri, hash_mark, name = run.rpartition("#")
    if not hash_mark or not store_uri or not name:
        raise ConfigError(f"run={run!r}: expected STORE#NAME, such as s3://bucket/lorid#gsm8k")
    store = open_store(store_uri)
    records = list_records(store, kind="triple", name=name)
    if not records:
        raise ArtifactIncomplete(
            f"{store.uri} holds no triple named {name!r}; train one with jobs/distill.py"
        )
    newest = records[-1]
    entry = next((entry for entry in newest.files if entry.path == CONFIG_FILE), None)
    if entry is None:
        raise ArtifactIncomplete(f"{newest.address} holds no {CONFIG_FILE}")
    text = store.read(f"blobs/{entry.sha256}").decode()
    changes = [f"{key}={value}" for key, value in (overrides or {}).items()]
    config = parse_config(text, overrides=[f"store={store.uri}", *changes], source=newest.address)
    return build_app(config, triple_address=newest.address)

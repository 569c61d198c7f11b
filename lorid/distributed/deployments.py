"""The deployment graph on Ray Serve.

      HTTP --> Ingress (web.py) ---- one call a question --> StudentEngine replica (student.py)
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

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import RayServeException

from lorid.artifacts.records import Record
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest, resolve_triple
from lorid.config import EndpointConfig, change_endpoint
from lorid.distributed.demands import INGRESS_CPUS, engine_gpus
from lorid.distributed.ingress import Ingress
from lorid.distributed.sources import StoredTriple, TripleSource, parse_address
from lorid.distributed.student import EngineFactory, StudentEngine
from lorid.engines.base import StudentTextEngine
from lorid.errors import ServeError

APP_NAME = "lorid"
# The one that serves, and the one that comes or drains.
NUM_TRIPLES = 2
# Requests that no limit counts: probes, lists of models, refusals on their way.
ROOM_FOR_PROBES = 1000
# Serve replaces a replica after three checks that failed.
HEALTH_CHECK_PERIOD_S = 2


def build_app(
    config: EndpointConfig,
    *,
    source: TripleSource,
    follows: bool = False,
    factory: EngineFactory | None = None,
) -> Application:
    """The graph; `factory` makes the engine (tests inject a scripted one)."""
    serving = config.serving
    ingress: Any = serve.deployment(
        Ingress,
        name="Ingress",
        # The endpoint's own limits are below this one: it refuses in the one shape of errors.
        max_ongoing_requests=serving.max_questions + serving.max_batches + ROOM_FOR_PROBES,
        max_queued_requests=ROOM_FOR_PROBES,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        graceful_shutdown_timeout_s=serving.drain_timeout_s,
    )
    student = student_app(config, source=source, follows=follows, factory=factory)
    return ingress.bind(student, serving.model_dump_json())


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
        # Questions wait in the replica's own slots, where single ones go first; never in a router.
        max_ongoing_requests=serving.max_questions + serving.max_items_in_flight + ROOM_FOR_PROBES,
        ray_actor_options={
            "num_cpus": engine.num_cpus,
            "num_gpus": engine_gpus(engine),
        },
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        health_check_timeout_s=60,
        graceful_shutdown_timeout_s=serving.drain_timeout_s,
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


def drain(app_name: str = APP_NAME) -> None:
    """Let a running endpoint refuse what is new, and finish what it has begun.

    Raises:
        ServeError: no such application runs on the cluster.
    """
    try:
        serve.get_app_handle(app_name).drain.remote().result()
    except RayServeException as error:
        raise ServeError(
            f"no application {app_name!r} runs on this cluster; `serve status` lists them"
        ) from error

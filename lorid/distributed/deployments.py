"""The deployment graph on Ray Serve.

      HTTP --> Ingress (web.py) ---- one call a question --> StudentEngine replica (student.py)
                                                               |  mutual_feedback, the generator
               round j:   IR attempt ----------.               |  driven by run_async:
                          KG text --> DR attempt+--> agree?    |  IR and KG wait for nothing,
               j < N and no agreement: round j+1               |  DR waits for KG, the rule for both
                                                               `-- vLLM: one base, three adapters,
                                                                   all questions in one batch

The rounds run inside the engine's replica, next to the engine: a question is one Serve call instead
of three a round. Where `serving.layout` gives each role an engine of its own, StudentEngine has the
rounds only, and each text is a call to a RoleEngine (roles.py). Which triple a question gets, and
how one follows another, is in `lorid.distributed.switching`. `build_app` is also what tests run,
with a scripted engine in Serve's local mode.
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
from lorid.distributed.demands import INGRESS_CPUS
from lorid.distributed.ingress import Ingress
from lorid.distributed.roles import RoleEngine, Roles
from lorid.distributed.scaling import (
    ROOM_FOR_PROBES,
    replica_resources,
    role_options,
    student_options,
)
from lorid.distributed.sources import StoredTriple, TripleSource, parse_address
from lorid.distributed.student import EngineFactory, StudentEngine
from lorid.engines.base import StudentTextEngine
from lorid.errors import ConfigError, ServeError
from lorid.method.roles import Role

APP_NAME = "lorid"
# The one that serves, and the one that comes or drains.
NUM_TRIPLES = 2
CANNOT_FOLLOW = (
    "serving.layout=merged serves one triple and cannot follow an alias; name the triple, "
    "STORE#NAME or STORE#NAME/VERSION, and deploy again for another one"
)


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
        ray_actor_options=replica_resources(INGRESS_CPUS),
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
    serving = config.serving
    num_triples = NUM_TRIPLES if follows else 1
    config_json = config.endpoint().model_dump_json()
    if serving.roles_apart:
        if follows and serving.layout == "merged":
            raise ConfigError(CANNOT_FOLLOW)
        apps: dict[Role, Any] = {}
        for role in Role:
            make = factory or VllmFactory(num_triples=num_triples, role=role)
            deployment: Any = serve.deployment(RoleEngine, **role_options(config, role))
            apps[role] = deployment.bind(config_json, role, make, source, num_triples)
        factory = Roles(apps)
    student: Any = serve.deployment(StudentEngine, **student_options(config))
    make = factory or VllmFactory(num_triples=num_triples)
    return student.bind(config_json, make, source, follows)


class VllmFactory:
    """Makes the real engine in its replica: of all roles, or of one where roles are apart."""

    def __init__(self, *, num_triples: int, role: Role | None = None) -> None:
        self.num_triples, self.role = num_triples, role

    def __call__(self, config: EndpointConfig) -> StudentTextEngine:
        if config.serving.layout == "merged" and self.role is not None:
            from lorid.distributed.merged import MergedEngine

            return MergedEngine(config, role=self.role)
        from lorid.engines.vllm import VllmEngine

        return VllmEngine(
            student=config.student,
            sampling=config.sampling,
            engine=config.engine,
            seed=config.seed,
            num_triples=self.num_triples,
            max_rank=config.serving.max_adapter_rank,
            num_roles=1 if self.role else len(Role),
        )


def app_of_triple(config: EndpointConfig, triple: Record) -> Application:
    """The graph of one triple, with the settings of `config` rather than the triple's own."""
    return build_app(config.endpoint(), source=source_of_triple(config, triple))


def source_of_triple(config: EndpointConfig, triple: Record) -> StoredTriple:
    """One triple of the store, answering by the settings of `config` rather than its own."""
    endpoint = config.endpoint()
    store = open_store(endpoint.store)
    sections = ("sampling", "feedback")
    overrides = [f"{name}={getattr(endpoint, name).model_dump_json()}" for name in sections]
    return StoredTriple(
        store=store.uri,
        base=read_manifest(store, triple).base,
        address=triple.address,
        overrides=[*overrides, f"seed={endpoint.seed}"],
    )


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
    if config.serving.layout == "split" and config.serving.max_adapter_rank is None:
        # Replicas of a role's engine start at different times, on different triples: they must
        # all have the same room.
        serving = config.serving.model_copy(update={"max_adapter_rank": manifest.max_rank})
        config = config.model_copy(update={"serving": serving})
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

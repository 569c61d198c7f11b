"""What Serve is told of each deployment: how many replicas, and what each asks of the cluster.

    serve.deployment(StudentEngine, **student_options(config))

An engine of several GPUs (`engine.tensor_parallel_size`) is one actor that asks for all of them, so
they are on one node without a placement group; vLLM's parts are processes that the actor starts.
"""

from typing import Any

from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from lorid.config import EndpointConfig
from lorid.distributed.demands import DRIVER_CPUS, engine_gpus
from lorid.distributed.routing import QuestionRouter
from lorid.method.roles import Role
from lorid.serving import ServingConfig

# Requests that no limit counts: probes, lists of models, refusals on their way.
ROOM_FOR_PROBES = 1000
# Serve replaces a replica after three checks that failed.
HEALTH_CHECK_PERIOD_S = 2
# What Serve reads where a replica starts. By default each call of another goes to a thread that
# routes and back, and user code has a thread of its own. Nothing of lorid's blocks a replica's
# loop: models are loaded, and formulas compared, elsewhere.
ON_ONE_LOOP = {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}


def replica_resources(num_cpus: float, *, num_gpus: float = 0) -> dict[str, Any]:
    """What a replica asks of the cluster, and how it runs."""
    env_vars = dict(ON_ONE_LOOP)
    return {"num_cpus": num_cpus, "num_gpus": num_gpus, "runtime_env": {"env_vars": env_vars}}


def student_options(config: EndpointConfig) -> dict[str, Any]:
    """Of StudentEngine: an engine with its questions, or only these where roles are apart."""
    serving = config.serving
    if serving.roles_apart:
        own = {
            "num_replicas": serving.num_drivers,
            "ray_actor_options": replica_resources(DRIVER_CPUS),
        }
    else:
        own = _engine_options(config, target=serving.max_concurrent_questions)
    return {
        **own,
        **_common(serving),
        "name": "StudentEngine",
        # Questions wait in the replica's own slots, where single ones go first; never in a router.
        "max_ongoing_requests": serving.max_questions
        + serving.max_items_in_flight
        + ROOM_FOR_PROBES,
    }


def role_options(config: EndpointConfig, role: Role) -> dict[str, Any]:
    """Of one role's engine; what its batch cannot take goes to another replica, or waits."""
    most = config.engine.max_num_seqs
    router: Any = QuestionRouter
    return {
        **_engine_options(config, target=most),
        **_common(config.serving),
        "name": f"{role.short}Engine",
        "max_ongoing_requests": most,
        "request_router_config": RequestRouterConfig(request_router_class=router),
    }


def _common(serving: ServingConfig) -> dict[str, Any]:
    return {
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": 60,
        "graceful_shutdown_timeout_s": serving.drain_timeout_s,
    }


def _engine_options(config: EndpointConfig, *, target: float) -> dict[str, Any]:
    engine = config.engine
    resources = replica_resources(engine.num_cpus, num_gpus=engine_gpus(engine))
    return {**_replicas(config.serving, target=target), "ray_actor_options": resources}


def _replicas(serving: ServingConfig, *, target: float) -> dict[str, Any]:
    scaling = serving.autoscaling
    if scaling is None:
        return {"num_replicas": serving.num_replicas}
    first = scaling.min_replicas if scaling.initial_replicas is None else scaling.initial_replicas
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            # Left out, Serve starts one even where none need run.
            initial_replicas=first,
            target_ongoing_requests=scaling.target_ongoing_requests or target,
            upscale_delay_s=scaling.upscale_delay_s,
            downscale_delay_s=scaling.downscale_delay_s,
            look_back_period_s=scaling.look_back_s,
        )
    }

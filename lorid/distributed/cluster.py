"""Connecting to Ray, and asking what it can hold.

`connected()` joins the cluster that `RAY_ADDRESS` names (a submitted job finds its own), or starts
one in this process tree and stops it again. Logical CPUs of a local cluster may exceed the cores:
every process bounds its own threads.
"""

import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import yaml

from lorid.config import EndpointConfig, RunConfig
from lorid.distributed import haproxy
from lorid.distributed.placement import Nodes
from lorid.errors import ResourceError, one_line

LOCAL_CPUS = 8
ENGINE_GPUS = "engine.num_gpus"
MIN_FREE_GIB = 5.0
CONNECT_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 400 * 1024**2
# Unless the caller said otherwise. Workers of a local cluster inherit them.
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    # Ray's C++ core prints harmless errors about restartable actors into the progress display.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Actors that mostly wait may outnumber the cores; Ray warns at multiples of this number.
    "RAY_worker_maximum_startup_concurrency": str(LOCAL_CPUS),
    # Serve's proxy calls the ingress by gRPC rather than by an actor call.
    "RAY_SERVE_PROXY_USE_GRPC": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # pyarrow's S3 client, which Ray Train uses, and S3-compatible servers agree only like this.
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


@contextmanager
def connected(*, quiet: bool = True) -> Iterator[None]:
    """A Ray connection for the duration of the block; joins one that is already open.

    Raises:
        ResourceError: the named cluster does not answer, or this machine is too small.
    """
    prepare_environment()
    with _sigterm_handler_kept():
        import ray

        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(quiet=quiet)
    if not is_ours:
        yield
        return
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        # Threads of a stage may be inside Ray's core: shut down under them, it can end this process
        # with exit code 1 and not a word. A local cluster's processes end with this one anyway.
        interrupted = True
        raise
    finally:
        if not interrupted:
            with suppress(Exception):
                ray.shutdown()


def prepare_environment() -> None:
    """Set what Ray reads when it is first imported; what the caller has set stays.

    A local cluster gets token authentication with a token of its own, so that no other user of the
    machine can send it work.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if os.environ.get("RAY_ADDRESS"):
        return
    haproxy.prepare()
    if "ray" in sys.modules:
        return
    has_token_file = (Path.home() / ".ray" / "auth_token").exists()
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token" and not (
        os.environ.get("RAY_AUTH_TOKEN_PATH") or has_token_file
    ):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def only_errors(logger: str) -> None:
    """Keep a Ray library's notes off the console; to be called once the library is imported.

    Importing it sets its logger's level, so an earlier call would be undone.
    """
    logging.getLogger(logger).setLevel(logging.ERROR)


def alive_nodes() -> list[Nodes]:
    """What the cluster has now, whoever uses it."""
    import ray

    return [
        Nodes(num_cpus=node["Resources"].get("CPU", 0), num_gpus=node["Resources"].get("GPU", 0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def nodes_to_come() -> list[Nodes] | None:
    """All nodes that the cluster's autoscaler may come to; none without one, None if not known.

    It is known for a cluster of this process, where a platform tells Ray, and on the machine of the
    autoscaler itself, whose command names its file. A job usually runs there.
    """
    import ray
    from ray._private.state import state

    if not os.environ.get("RAY_ADDRESS"):
        return []
    told = state.get_cluster_config()
    if told is not None and told.node_group_configs:
        return [
            _nodes(dict(group.resources), count=group.max_count)
            for group in told.node_group_configs
        ]
    command = _autoscaler_command(ray.get_runtime_context().gcs_address)
    if command is None:
        return None
    flag = "--autoscaling-config="
    named = [word.removeprefix(flag) for word in command if word.startswith(flag)]
    return _nodes_in(Path(named[0]).expanduser()) if named else []


def _autoscaler_command(gcs_address: str) -> list[str] | None:
    """How the cluster's monitor was started, if it runs on this machine."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        is_monitor = any(word.endswith("monitor.py") for word in command[:3])
        if is_monitor and f"--gcs-address={gcs_address}" in command:
            return command
    return None


def _nodes_in(file: Path) -> list[Nodes] | None:
    """The worker types of a cluster launcher's file; a type without numbers is not known."""
    try:
        config = yaml.safe_load(file.read_text())
        head, most = config.get("head_node_type"), config.get("max_workers", 2)
        return [
            # Where a file names no CPUs, the cloud's machine type does: then it is not known.
            _nodes(
                {"CPU": kind["resources"]["CPU"], **kind["resources"]},
                count=min(most, kind.get("max_workers", most)),
            )
            for name, kind in config["available_node_types"].items()
            if name != head
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None


def _nodes(resources: Mapping[str, float], *, count: int) -> Nodes:
    return Nodes(num_cpus=resources.get("CPU", 0), num_gpus=resources.get("GPU", 0), count=count)


def require_accelerators(config: RunConfig, *, stages: Sequence[str]) -> None:
    """Refuse at once what these stages can never get without an autoscaler.

    Raises:
        ResourceError: the config asks for GPUs, and this machine has none.
    """
    asked = {
        "knowledge": (
            "teacher.engine.num_gpus",
            config.teacher.engine.num_gpus if config.teacher.kind == "vllm" else 0,
        ),
        "train": ("training.num_gpus", config.training.num_gpus),
        "evaluate": (ENGINE_GPUS, config.engine.num_gpus),
    }
    _require_gpus({field: num for stage, (field, num) in asked.items() if stage in stages})


def require_engine(config: EndpointConfig) -> None:
    """`require_accelerators` for an endpoint alone."""
    _require_gpus({ENGINE_GPUS: config.engine.num_gpus})


def _require_gpus(asked: Mapping[str, float]) -> None:
    import ray

    if os.environ.get("RAY_ADDRESS"):
        return
    available = ray.cluster_resources().get("GPU", 0)
    too_much = [f"{field}={value:g}" for field, value in asked.items() if value > available]
    if too_much:
        raise ResourceError(
            f"this machine has {available:g} GPUs, the config asks for {', '.join(too_much)}; "
            "set them to 0 for the CPU, or submit the job to a cluster with GPUs"
        )


def _connect(*, quiet: bool) -> None:
    if address := os.environ.get("RAY_ADDRESS"):
        _join(address, quiet=quiet)
    else:
        _start_local(quiet=quiet)


def _require_listening(address: str) -> None:
    """Ray itself looks for a cluster that is gone for minutes, and then ends by abort()."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ResourceError(
            f"no Ray cluster answers at RAY_ADDRESS={address}: {error}; "
            "start it, name another, or unset RAY_ADDRESS for this machine alone"
        ) from error


def _join(address: str, *, quiet: bool) -> None:
    import ray

    _require_listening(address)
    try:
        ray.init(address=address, log_to_driver=not quiet, logging_level=logging.WARNING)
    except Exception as error:
        cause = one_line(error, max_chars=160)
        raise ResourceError(
            f"cannot join the Ray cluster at RAY_ADDRESS={address}: {cause}; "
            "check that it runs and that RAY_AUTH_MODE and its token match"
        ) from error


def _start_local(*, quiet: bool) -> None:
    import ray

    if any(character.isspace() for character in sys.executable):
        raise ResourceError(
            f"Ray cannot start its workers by {sys.executable}, whose path holds a space; "
            "make the virtual environment in a folder without one"
        )
    free_gib = psutil.virtual_memory().available / 1024**3
    if free_gib < MIN_FREE_GIB:
        raise ResourceError(
            f"{free_gib:.1f} GiB of memory are free, a local run needs {MIN_FREE_GIB:g}; "
            "close something, or submit the job to a cluster"
        )
    free_disk_gib = shutil.disk_usage(tempfile.gettempdir()).free / 1024**3
    if free_disk_gib < 1:
        raise ResourceError(
            f"{free_disk_gib:.1f} GiB are free in {tempfile.gettempdir()}, Ray needs 1; "
            "free some space or set TMPDIR"
        )
    with suppress(ValueError, OSError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    # Workers start in other folders: they import the same code as the driver does.
    source = str(Path(__file__).resolve().parents[2])
    with _without_log_level_note():
        ray.init(
            # Without it Ray would join whatever cluster was last started on this machine.
            address="local",
            num_cpus=max(LOCAL_CPUS, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=not quiet,
            logging_level=logging.WARNING,
            object_store_memory=OBJECT_STORE_BYTES,
            runtime_env={"env_vars": {"PYTHONPATH": source}},
        )


@contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """Put the handler of SIGTERM back: Ray sets its own, whose core ends the process by abort()."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Elsewhere nobody may set handlers, and Ray does not.
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _without_log_level_note() -> Iterator[None]:
    """Drop the one line in which Ray's core says that it has read RAY_BACKEND_LOG_LEVEL.

    The core writes to the file descriptor itself. Everything else that is written meanwhile is
    written after all, at the end of the block.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            hidden.seek(0)
            for line in hidden:
                if b"RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(2, line)

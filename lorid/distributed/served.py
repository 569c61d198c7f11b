"""A triple's endpoint on Ray Serve, for as long as somebody asks it.

with served(config, triple=record) as url:
    ...
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions

from lorid.artifacts.records import Record
from lorid.config import EndpointConfig
from lorid.distributed.cluster import only_errors
from lorid.distributed.deployments import APP_NAME, app_of_triple
from lorid.distributed.online import client_of
from lorid.distributed.progress import Progress
from lorid.distributed.room import waits_said
from lorid.errors import ServeError

READY_TIMEOUT_S = 600.0


@contextmanager
def served(config: EndpointConfig, *, triple: Record) -> Iterator[str]:
    """The triple's endpoint for the duration of the block; gives its URL.

    Raises:
        ServeError: the port is in use, or the graph does not become ready.
    """
    only_errors("ray.serve")
    serving = config.serving
    require_free_port(serving.host, serving.port)
    serve.start(http_options=HTTPOptions(host=serving.host, port=serving.port))
    try:
        with waits_said(Progress("evaluate").say):
            _deploy(app_of_triple(config, triple))
            url = f"http://{serving.host}:{serving.port}"
            with client_of(config, url) as client:
                client.wait_until_ready(timeout_s=READY_TIMEOUT_S)
            yield url
    finally:
        # Ray prints the end of Serve's controller, which we asked for, as the failure of a task.
        with redirect_stdout(StringIO()):
            serve.shutdown()


def _deploy(app: Application) -> None:
    try:
        serve.run(app, name=APP_NAME, route_prefix="/", blocking=False)
    except RuntimeError as error:
        raise ServeError(f"the endpoint cannot start: {_reason_noted()}") from error


def _reason_noted() -> str:
    """Why a replica did not start: lorid's own error in what Serve notes, or else its last line.

    Serve keeps a replica's error as the text of a traceback only.
    """
    app = serve.status().applications.get(APP_NAME)
    noted = [deployment.message for deployment in app.deployments.values()] if app else []
    lines = [line.strip() for text in noted for line in text.splitlines() if line.strip()]
    own = [line.partition(": ")[2] for line in lines if line.startswith("lorid.errors.")]
    return next(iter(own or reversed(lines)), "see Serve's log")[:500]


def require_free_port(host: str, port: int) -> None:
    """Raise ServeError when somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"cannot listen on {host}:{port}: {error.strerror}; "
                "stop what uses it, or set serving.port (or serving.host)"
            ) from error

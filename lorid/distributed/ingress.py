"""The ingress: the one deployment that HTTP reaches.

Its routes are in `lorid.distributed.web`. It starts only where it is protected: beyond loopback the
endpoint needs tokens. There is one of it, so that limits and metrics are those of the endpoint.
"""

from typing import Any

from ray import serve
from starlette.types import ASGIApp

from lorid.distributed.access import tokens_for
from lorid.distributed.calls import by_grpc
from lorid.distributed.endpoint import make_endpoint
from lorid.distributed.logs import without_serves_lines
from lorid.distributed.web import make_web
from lorid.serving import ServingConfig


class IngressBase:
    """Holds the endpoint's HTTP side in its replica."""

    def __init__(self, student: Any, serving_json: str) -> None:
        without_serves_lines()
        serving = ServingConfig.model_validate_json(serving_json)
        tokens = tokens_for(listening_host(), serving.tokens_file)
        self.endpoint = make_endpoint(by_grpc(student), serving, tokens=tokens)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Serve calls for the routes, in the replica."""
        return make_web(self.endpoint)

    async def drain(self) -> None:
        """From now on refuse what is new with 503; what runs goes on."""
        self.endpoint.admission.is_draining = True


Ingress: Any = serve.ingress()(IngressBase)


def listening_host() -> str | None:
    """Where Serve's proxies listen; None when that cannot be found out."""
    from ray.serve.context import _get_global_client

    try:
        client: Any = _get_global_client()
        return client.http_config.host
    except Exception:
        # A private way to ask: without an answer the endpoint takes itself for reachable.
        return None

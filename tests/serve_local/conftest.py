"""The deployment graph in this process: Serve's local mode around the scripted engine."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from ray import serve
from scripting import NoStore, Prepared, small_config
from starlette.types import ASGIApp

from lorid.distributed.deployments import student_app
from lorid.distributed.ingress import make_endpoint
from lorid.distributed.web import make_web
from lorid.engines.scripted import ScriptedEngine


@pytest.fixture
def web() -> Callable[..., ASGIApp]:
    """Makes the HTTP side of the graph around a scripted engine."""

    def start(
        engine: ScriptedEngine, *, host: str = "127.0.0.1", serving: dict | None = None, **feedback
    ) -> ASGIApp:
        config = small_config(**feedback)
        config = config.model_copy(
            update={"serving": config.serving.model_copy(update=serving or {})}
        )
        student = serve.run(
            student_app(config, source=NoStore(config), factory=Prepared(engine)),
            _local_testing_mode=True,
        )
        return make_web(make_endpoint(student, config.serving, host=host))

    return start


@pytest.fixture
def endpoint(web) -> Callable[..., TestClient]:
    """Makes an HTTP client of it."""

    def start(engine: ScriptedEngine, **settings) -> TestClient:
        return TestClient(web(engine, **settings), raise_server_exceptions=False)

    return start

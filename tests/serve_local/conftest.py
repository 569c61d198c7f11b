"""The deployment graph in this process: Serve's local mode around the scripted engine."""

import json
import logging
import socket
from collections.abc import Callable, Iterator
from threading import Thread

import pytest
import uvicorn
from fastapi.testclient import TestClient
from ray import serve
from scripting import NoStore, Prepared, small_config
from starlette.types import ASGIApp

from lorid.distributed.access import tokens_for
from lorid.distributed.deployments import student_app
from lorid.distributed.endpoint import make_endpoint
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
        tokens = tokens_for(host, config.serving.tokens_file)
        return make_web(make_endpoint(student, config.serving, tokens=tokens))

    return start


@pytest.fixture
def endpoint(web) -> Callable[..., TestClient]:
    """Makes an HTTP client of it."""

    def start(engine: ScriptedEngine, **settings) -> TestClient:
        return TestClient(web(engine, **settings), raise_server_exceptions=False)

    return start


@pytest.fixture
def served(web) -> Iterator[Callable[..., str]]:
    """Serves it on loopback, by real HTTP; gives the URL."""
    servers = []

    def start(engine: ScriptedEngine, **settings) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(web(engine, **settings), log_level="error"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.should_exit = server.force_exit = True
        thread.join()


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """The records that lorid's loggers get; Serve's logger hands nothing on to its parents."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("ray.serve.lorid")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture
def audited(logged) -> Callable[[], list[dict]]:
    """What the audit log has written, as objects."""

    def read() -> list[dict]:
        lines = [one for one in logged if one.name == "ray.serve.lorid.audit"]
        return [json.loads(one.getMessage()) for one in lines]

    return read

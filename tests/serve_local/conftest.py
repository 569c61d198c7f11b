"""The deployment graph in this process: Serve's local mode around the scripted engine."""

import asyncio
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from ray import serve
from scripting import NoStore, Prepared, small_config

from lorid.distributed.deployments import student_app
from lorid.distributed.ingress import Ingress, web
from lorid.engines.scripted import ScriptedEngine


@pytest.fixture
def endpoint(monkeypatch):
    """Makes an HTTP client of the graph around a scripted engine."""

    def start(engine: ScriptedEngine, **feedback: object) -> TestClient:
        config = small_config(**feedback)
        student = serve.run(
            student_app(config, source=NoStore(config), factory=Prepared(engine)),
            _local_testing_mode=True,
        )

        async def ingress() -> Ingress:
            servable = Ingress.__new__(Ingress)
            await Ingress.__init__(servable, student, config.serving.max_concurrent_questions)
            return servable

        # Local mode has no proxy: the routes get their instance here instead.
        context = SimpleNamespace(servable_object=asyncio.run(ingress()))
        monkeypatch.setattr(serve, "get_replica_context", lambda: context)
        return TestClient(web, raise_server_exceptions=False)

    return start

"""The endpoint around an engine that answers at once: what a question costs each of its processes.

Serve, HAProxy, the ingress and StudentEngine are the real ones, over HTTP on loopback; the engine
(`InstantEngine`, a fake) writes its scripted texts without a model. Client and server share two
cores, so the rate that came through says little: the CPU time of each process for a question is
what counts, and its inverse is the most that one such process can do on a core of its own.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import psutil
import serve_paced
from ray import cloudpickle, serve
from ray.serve.config import HTTPOptions
from serve_paced import OneTriple

from lorid.client import Client
from lorid.config import EndpointConfig
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import build_app
from lorid.engines.base import Completion, GenerationRequest, TextSink
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role
from lorid.presets import demo

PARTS = {"/haproxy": "haproxy", "Ingress": "ingress", "StudentEngine": "student",
         "IREngine": "role engines", "KGEngine": "role engines", "DREngine": "role engines",
         "ServeController": "controller"}  # fmt: skip
QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
AT_ONCE = 32


class InstantEngine(ScriptedEngine):
    """A fake: every text at once, and nothing of it is remembered."""

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """See `TextEngine.generate`."""
        self.history.clear()
        return await super().generate(request, on_text=on_text)


class Instant:
    """Its factory: both sides agree in the first round, so a question is three texts."""

    def __call__(self, _: EndpointConfig) -> InstantEngine:
        """See `EngineFactory`."""
        return InstantEngine({role: ["So it is.\n--> 7 END"] for role in (*Role, None)})


def endpoint(layout: str, *, questions: int) -> dict[str, Any]:
    """Questions through an endpoint of that layout; asserts that each was answered right."""
    for module in (sys.modules[__name__], serve_paced):
        cloudpickle.register_pickle_by_value(module)
    config = demo()
    changes = {"layout": layout, "max_concurrent_questions": 64}
    config = config.model_copy(update={"serving": config.serving.model_copy(update=changes)})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with connected():
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        try:
            app = build_app(config, source=OneTriple(), factory=Instant())
            serve.run(app, name="lorid")
            with Client(url) as client:
                client.wait_until_ready(timeout_s=120)
            asyncio.run(flood(f"{url}/v1/solve", num=AT_ONCE * 4))
            healthz = measured(f"{url}/healthz", num=questions)
            solve = measured(f"{url}/v1/solve", num=questions)
        finally:
            serve.shutdown()
    return {"layout": layout, "texts_a_question": 3, "healthz": healthz, "solve": solve}


def measured(url: str, *, num: int) -> dict[str, Any]:
    """Requests/s that came through, and each process's CPU time a request."""
    processes = parts()
    before = {one: sum(one.cpu_times()[:2]) for one in processes}
    began = time.monotonic()
    asyncio.run(flood(url, num=num))
    seconds = time.monotonic() - began
    cpu: dict[str, float] = {}
    for process, name in processes.items():
        cpu[name] = cpu.get(name, 0) + sum(process.cpu_times()[:2]) - before[process]
    return {
        "requests": num,
        "at_once": AT_ONCE,
        "per_s_on_shared_cores": round(num / seconds, 1),
        "cpu_ms_a_request": {name: round(used / num * 1000, 3) for name, used in cpu.items()},
        "per_s_of_a_core": {name: round(num / used) for name, used in cpu.items() if used},
    }


async def flood(url: str, *, num: int) -> None:
    """So many requests, `AT_ONCE` under way."""
    numbers = iter(range(num))

    async def ask(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {"question": f"{number}: {QUESTION}"}
            is_get = url.endswith("healthz")
            call = session.get(url) if is_get else session.post(url, json=body)
            async with call as response:
                answer: Mapping[str, Any] = await response.json()
                assert response.status == 200, answer
                assert is_get or answer["answer"] == "7", answer

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(ask(session) for _ in range(AT_ONCE)))


def parts() -> dict[psutil.Process, str]:
    """The endpoint's processes that are descendants of this one."""
    found: dict[psutil.Process, str] = {}
    for process in psutil.Process().children(recursive=True):
        title = " ".join(process.cmdline()[:1])
        for mark, name in PARTS.items():
            if mark in title:
                found[process] = name
    return found

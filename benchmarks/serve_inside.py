"""The endpoint's HTTP side in this process, without Ray Serve: what of an answer's time is ours.

ask = AsgiEndpoint(replica)      # a StudentEngine
status, body = await ask.post("/v1/solve", {"question": "..."})
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from lorid.distributed.endpoint import make_endpoint
from lorid.distributed.student import StudentEngine
from lorid.distributed.web import make_web


class Handle:
    """A handle of a replica that is an object here."""

    def __init__(self, replica: StudentEngine) -> None:
        self.replica = replica

    def __getattr__(self, method: str) -> "Method":
        return Method(getattr(self.replica, method))


class Method:
    """One of its methods."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.call = call

    def remote(self, *arguments: Any, **options: Any) -> "asyncio.Future[Any]":
        """What Serve's would return: to be awaited, or cancelled."""
        return asyncio.ensure_future(self.call(*arguments, **options))


class AsgiEndpoint:
    """The routes, edge and admission of the endpoint around a replica."""

    def __init__(self, replica: StudentEngine) -> None:
        serving = replica.config.serving
        self.app = make_web(make_endpoint(Handle(replica), serving, tokens=None))

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """One request, from the bytes of its body to those of the answer."""
        data = json.dumps(body).encode()
        messages: list[Any] = []
        requests = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> Any:
            if requests:
                return requests.pop()
            return await asyncio.Future()

        async def send(message: Any) -> None:
            messages.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "",
            "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(data)).encode()),
            ],
        }  # fmt: skip
        await self.app(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return messages[0]["status"], json.loads(body)

"""A fake of the hub's HTTP side: models of a few files, behind a token.

    with fake_hub({"org/name": folder}, token="hf_...") as hub:
        hub.url, hub.requests

Only what `huggingface_hub.snapshot_download` asks: a model's list of files, and the files.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Where it listens, and what it was asked."""

    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def fake_hub(models: Mapping[str, Path], *, token: str) -> Iterator[Hub]:
    """A hub with these models; asks for the token always."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(with_body=True)

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def answer(self, *, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            if self.headers.get("Authorization") != f"Bearer {token}":
                self.reply(401, b"", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)
                return
            for name, folder in models.items():
                commit = hashlib.sha1(name.encode()).hexdigest()
                headers = {"X-Repo-Commit": commit}
                if path.startswith(f"/api/models/{name}/revision/"):
                    files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                    body = json.dumps({"id": name, "sha": commit, "siblings": files}).encode()
                    self.reply(200, body, headers, with_body=with_body)
                    return
                if path.startswith(f"/api/models/{name}/tree/"):
                    tree = [
                        {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                        for file in sorted(folder.iterdir())
                    ]
                    self.reply(200, json.dumps(tree).encode(), headers, with_body=with_body)
                    return
                file = folder / path.rpartition("/")[2]
                if path.startswith(f"/{name}/resolve/") and file.is_file():
                    body = file.read_bytes()
                    headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()}"'
                    self.reply(200, body, headers, with_body=with_body)
                    return
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)

        def reply(
            self, status: int, body: bytes, headers: Mapping[str, str], *, with_body: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

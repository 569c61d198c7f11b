"""EC2's notice of interruption, from a server that speaks as its metadata service does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lorid.distributed.preemption import NOTICE_PATHS, Notices, SpotWatcher
from lorid.training.ranks import Ranks

ACTION, REBALANCE = NOTICE_PATHS
STOP = json.dumps({"action": "terminate", "time": "2026-11-25T08:22:00Z"})


class MetadataServer(ThreadingHTTPServer):
    """IMDSv2: a token by PUT, which can be made to expire; 404 where there is no notice."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.notices: dict[str, str] = {}
        self.tokens: list[str] = []
        self.num_reads = 0
        self.polled = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def wait_for_polls(self, count: int) -> None:
        """Until so many more rounds were asked for, whole."""
        with self.polled:
            wanted = self.num_reads + (count + 1) * len(NOTICE_PATHS)
            assert self.polled.wait_for(lambda: self.num_reads >= wanted, timeout=20)


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        token = f"token-{len(self.server.tokens)}"
        self.server.tokens.append(token)
        self._answer(200 if self.path == "/latest/api/token" else 404, token)

    def do_GET(self) -> None:
        with self.server.polled:
            self.server.num_reads += 1
            self.server.polled.notify_all()
        if self.headers["X-aws-ec2-metadata-token"] != self.server.tokens[-1]:
            return self._answer(401, "")
        text = self.server.notices.get(self.path.removeprefix("/latest/meta-data/"))
        return self._answer(404 if text is None else 200, text or "Not Found")

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    server = MetadataServer()
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    yield server
    server.shutdown()


@pytest.fixture
def watcher(server):
    watcher = SpotWatcher(seconds=0.01)
    watcher.start()
    yield watcher
    watcher.stop()
    watcher.join(timeout=10)
    assert not watcher.is_alive()


@pytest.mark.parametrize("path", NOTICE_PATHS)
def test_a_notice_is_taken_once_and_a_new_one_again(server, watcher, path):
    server.wait_for_polls(2)
    assert not watcher.take()
    server.notices[path] = STOP
    server.wait_for_polls(2)
    assert watcher.take()
    server.wait_for_polls(2)
    assert not watcher.take()
    server.notices[path] = STOP.replace("08:22", "09:30")
    server.wait_for_polls(2)
    assert watcher.take()


def test_a_token_that_has_expired_is_renewed(server, watcher):
    server.wait_for_polls(1)
    server.tokens.append("another")  # the watcher's own is refused from now on
    server.notices[ACTION] = STOP
    server.wait_for_polls(3)
    assert watcher.take()
    assert watcher.token == server.tokens[-1]


@pytest.mark.parametrize("reason", ["nobody answers", "disabled", "not a metadata service"])
def test_elsewhere_the_watcher_ends_after_one_question(server, monkeypatch, reason):
    if reason == "nobody answers":
        server.shutdown()
        server.server_close()
    elif reason == "disabled":
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    else:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{server.url}/other")
    watcher = SpotWatcher(seconds=0.01)
    watcher.start()
    watcher.join(timeout=10)
    assert not watcher.is_alive()
    assert not watcher.take()
    assert server.num_reads == 0


def test_a_training_is_told_by_ec2_and_by_ray(server, monkeypatch):
    monkeypatch.setattr("lorid.distributed.preemption.SECONDS_BETWEEN_ASKS", 0.0)
    said: list[object] = [None, "node 1 drains", "node 1 drains", None, "node 2 drains"]
    spot = SpotWatcher(seconds=0.01)
    notices = Notices(Ranks(), ask_ray=lambda: said.pop(0) if said else None, spot=spot)
    assert [notices.seen() for _ in range(5)] == [False, True, False, False, True]
    server.notices[REBALANCE] = STOP
    server.wait_for_polls(2)
    assert [notices.seen() for _ in range(2)] == [True, False]
    spot.stop()

"""The Python client against a server that answers what a test says."""

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lorid.client import Client
from lorid.errors import EndpointBusy, ServeError


@pytest.fixture
def server():
    """A local HTTP server; `server.reply` is (status, body), `server.seen` what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.server.seen.append((self.path, self.headers["Authorization"], body))
            self.answer()

        def answer(self):
            status, reply = self.server.reply
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def do_GET(self):
            self.server.seen.append((self.path, self.headers["Authorization"], None))
            self.answer()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.seen, http.reply = [], (200, b"{}")
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def test_only_what_was_chosen_is_sent_with_the_token(server):
    server.reply = (200, b'{"answer": "5"}')
    with Client(server.url + "/", "key") as client:
        assert client.solve("2 + 3 = ?", max_rounds=2)["answer"] == "5"
        client.grade([{"id": "1", "question": "2 + 3 = ?", "reference": "5"}], seed=0)
    (path, token, body), (_, _, graded) = server.seen
    assert (path, token) == ("/v1/solve", "Bearer key")
    assert body == {"question": "2 + 3 = ?", "max_rounds": 2}
    assert graded["seed"] == 0
    assert graded["items"][0]["reference"] == "5"


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ((422, b'{"error": {"message": "question: too long"}}'), "422: question: too long"),
        ((502, b"<html>bad gateway</html>"), "bad gateway"),
        ((500, b'["odd"]'), "500"),
    ],
)
def test_a_refusal_says_why(server, reply, named):
    server.reply = reply
    with Client(server.url) as client, pytest.raises(ServeError, match=named):
        client.solve("2 + 3 = ?")


def test_a_closed_port_says_how_to_start_the_endpoint():
    # Bound, so that nobody else takes it, but not listening.
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with Client(url) as client, pytest.raises(ServeError, match="serve run"):
            client.solve("2 + 3 = ?")


@pytest.mark.parametrize(
    ("status", "body", "is_passing"),
    [
        (429, b'{"error": {"type": "too_many_requests", "message": "full"}}', True),
        (503, b'{"error": {"type": "draining", "message": "going"}}', True),
        (502, b"<html>bad gateway</html>", True),
        # Ray's proxy, when the ingress died under the request; the endpoint's own 500 is no such.
        (500, b"Internal Server Error", True),
        (500, b'{"error": {"type": "internal_error", "message": "failed"}}', False),
        (401, b'{"error": {"type": "unauthorized", "message": "token"}}', False),
    ],
)
def test_a_refusal_says_whether_asking_again_may_help(server, status, body, is_passing):
    server.reply = status, body
    items = [{"id": "1", "question": "2 + 3 = ?", "reference": "5"}]
    with Client(server.url) as client:
        for ask in (
            lambda: client.solve("2 + 3 = ?"),
            lambda: list(client.solve_stream("2 + 3 = ?")),
            lambda: list(client.grade_stream(items)),
        ):
            with pytest.raises(ServeError) as raised:
                ask()
            assert isinstance(raised.value, EndpointBusy) == is_passing


def test_a_stream_that_is_cut_off_is_no_whole_answer(server):
    server.reply = 200, b'event: attempt\ndata: {"round": 1}\n\n{"id": "1"}\n'
    items = [{"id": "1", "question": "2 + 3 = ?", "reference": "5"}]
    with Client(server.url) as client:
        with pytest.raises(EndpointBusy, match="without an answer"):
            list(client.solve_stream("2 + 3 = ?"))
        server.reply = 200, b'{"id": "1"}\n{"id": "2"'
        with pytest.raises(EndpointBusy, match="cut off"):
            list(client.grade_stream(items))


@pytest.mark.parametrize("kind", ["idle_adapters", "cannot_start"])
def test_waiting_ends_at_once_when_it_cannot_help(server, kind):
    error = {"type": kind, "message": "something about deep_reasoner"}
    server.reply = 503, json.dumps({"error": error}).encode()
    with Client(server.url) as client, pytest.raises(ServeError, match="deep_reasoner"):
        client.wait_until_ready(timeout_s=300)
    assert len(server.seen) == 1

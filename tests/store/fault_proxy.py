"""A proxy in front of an S3 server that does to requests what networks and servers do.

    with FaultProxy(endpoint, rate=0.05, seed=1) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url

Of `rate` of the requests, by a seeded generator: an error before the server sees it (500, 503
SlowDown), a reset before or after the server has done it (so that its answer is lost), no answer at
all, an answer that comes slowly, that breaks off in its middle, or of which a bit is flipped.
`gone()` refuses every connection for a while, and breaks those that are open; `gone_at()` begins
that with a request of one's choice.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "reset", "lost answer", "hang", "slow", "truncated", "flipped")
HANG_S = 1.5
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"


class FaultProxy:
    """The proxy; `seen` counts the faults that were done, `limit` ends them."""

    def __init__(self, endpoint: str, *, rate: float = 0.0, seed: int = 0, faults=FAULTS) -> None:
        self.upstream = urlsplit(endpoint)
        self.rate, self.faults = rate, faults
        self.random = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.limit = float("inf")
        self.num_requests = 0
        self.num_body_bytes = 0
        self.refuse: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.lock = threading.Lock()
        self.is_gone = False
        self.open: set[socket.socket] = set()
        self.outages: list[Outage] = []
        self.server: ThreadingHTTPServer | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The endpoint to give to clients."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "FaultProxy":
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @contextmanager
    def gone(self):
        """The server is gone for the duration of the block."""
        self._close()
        try:
            yield
        finally:
            self._listen()

    def gone_at(self, moment: Callable[[str, str], bool], *, seconds: float) -> "Outage":
        """The server goes once, when a request comes whose method and path `moment` knows.

        That request meets it: the server never sees it.
        """
        outage = Outage(moment, seconds)
        self.outages.append(outage)
        return outage

    def meets_outage(self, method: str, path: str) -> bool:
        """Whether an outage has begun with this request."""
        with self.lock:
            due = next((one for one in self.outages if one.moment(method, path)), None)
            if due is None:
                return False
            self.outages.remove(due)
        threading.Thread(target=self._go, args=(due,), daemon=True).start()
        return due.began.wait(60)

    def _go(self, outage: "Outage") -> None:
        with self.gone():
            outage.began.set()
            time.sleep(outage.seconds)
        outage.ended.set()

    def next_fault(self) -> str | None:
        """The fault of the next request, mostly none."""
        with self.lock:
            self.num_requests += 1
            if self.seen.total() >= self.limit or self.random.random() >= self.rate:
                return None
            fault = self.random.choice(self.faults)
            self.seen[fault] += 1
            return fault

    def _listen(self) -> None:
        self.is_gone = False
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = _Server(("127.0.0.1", self.port), handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def _close(self) -> None:
        assert self.server is not None
        self.is_gone = True
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.open):
            _reset(connection)


class Outage:
    """One time that the server is gone; the events tell where in it the test is."""

    def __init__(self, moment: Callable[[str, str], bool], seconds: float) -> None:
        self.moment, self.seconds = moment, seconds
        self.began, self.ended = threading.Event(), threading.Event()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no error of the proxy."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy
    # Without it, an answer's headers and body wait for each other's acknowledgement.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.proxy.open.add(self.connection)

    def finish(self) -> None:
        self.proxy.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.proxy.lock:
            self.proxy.num_body_bytes += len(body)
        if self.proxy.meets_outage(self.command, self.path):
            return _reset(self.connection)
        refused = self.proxy.refuse(self.command, self.path)
        if refused is not None:
            return self.error(*refused)
        fault = self.proxy.next_fault()
        if fault == "500":
            return self.error(500, "InternalError")
        if fault == "503":
            return self.error(503, "SlowDown")
        if fault == "reset":
            return _reset(self.connection)
        if fault == "hang":
            time.sleep(HANG_S)
            return _reset(self.connection)
        status, headers, content = self.forward(body)
        if fault == "lost answer" or self.proxy.is_gone:
            return _reset(self.connection)
        return self.answer(status, headers, content, fault=fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815 - the base's names

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = self.proxy.upstream
        client = http.client.HTTPConnection(str(upstream.hostname), upstream.port, timeout=60)
        try:
            client.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    client.putheader(name, value)
            client.endheaders(body)
            answer = client.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            client.close()

    def answer(self, status, headers, content: bytes, *, fault: str | None) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # of a HEAD: that of the object
            elif name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if fault == "truncated" and content:
            self.wfile.write(content[: len(content) // 2])
            return _reset(self.connection, gently=True)
        if fault == "flipped" and self.command == "GET" and b"<?xml" not in content[:10]:
            content = bytes([content[0] ^ 1]) + content[1:] if content else content
        if fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 5)):
                self.wfile.write(content[start : start + max(1, len(content) // 5)])
                time.sleep(0.1)
            return None
        self.wfile.write(content)
        return None

    def error(self, status: int, code: str) -> None:
        content = b"" if self.command == "HEAD" else ERROR.format(code=code).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _reset(connection: socket.socket, *, gently: bool = False) -> None:
    with suppress(OSError):
        if not gently:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.shutdown(socket.SHUT_RDWR)
    with suppress(OSError):
        connection.close()

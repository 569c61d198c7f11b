"""Waiting out a server: retries with backoff and jitter, up to a stated time.

    persistence = Persistence(name="s3://bucket/x")
    answer = persistence.run(lambda: client.get_object(...))

A server that does not answer is waited for, `LORID_STORE_WAIT_S` seconds (180) from a request's
first failure, and a line says so. A name that does not resolve, or a certificate that does not
hold, of a server that this store has never reached is rather a wrong address: `START_WAIT_S`.
Whatever a server answers, an error too, is reaching it.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lorid.errors import one_line

T = TypeVar("T")
WAIT_S = 180.0
START_WAIT_S = 3.0
FIRST_DELAY_S = 0.1
MAX_DELAY_S = 5.0
SAID_AFTER_S = 3.0
PASSING_STATUS = {429, 500, 502, 503, 504}
PASSING_CODES = {
    "SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestTimeoutException",
    "Throttling", "ThrottlingException", "TooManyRequestsException", "BandwidthLimitExceeded",
    "RequestLimitExceeded", "BadDigest", "IncompleteBody", "OperationAborted",
    "ConditionalRequestConflict",
}  # fmt: skip

_at_most: ContextVar[float | None] = ContextVar("_at_most", default=None)


class Stopped(Exception):
    """The transfer that a request belongs to is over; nobody wants its result."""


class Damaged(Exception):
    """Content that differs from what the server says of it: try again."""


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Wait no longer than this for a lost server, in this thread's requests in the block."""
    token = _at_most.set(seconds)
    try:
        yield
    finally:
        _at_most.reset(token)


def wait_s() -> float:
    """How long a lost server is waited for."""
    bound = _at_most.get()
    if bound is not None:
        return bound
    try:
        return max(0.0, float(os.environ.get("LORID_STORE_WAIT_S", "")))
    except ValueError:
        return WAIT_S


def is_wrong_address(error: Exception) -> bool:
    """Whether this rather is no server of that name than one that is down just now."""
    from botocore import exceptions
    from urllib3.exceptions import NameResolutionError

    cause = getattr(error, "kwargs", {}).get("error")
    return isinstance(error, exceptions.SSLError) or isinstance(cause, NameResolutionError)


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, exceptions.ClientError):
        code, status = code_and_status(error)
        # A server that is about to shut down, or a proxy before it, answers without a code.
        return status in PASSING_STATUS or code in PASSING_CODES or status == 409
    broken = (
        exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError, ResponseParserError, HTTPError, ConnectionError,
        TimeoutError, Damaged,
    )  # fmt: skip
    return isinstance(error, broken)


def code_and_status(error: Any) -> tuple[str, int]:
    """A ClientError's code and HTTP status."""
    response = error.response
    code = str(response.get("Error", {}).get("Code", "unknown"))
    return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@dataclass
class Persistence:
    """The patience of one store, shared by its threads."""

    name: str
    has_reached: bool = False
    announce: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    said_at: float | None = None
    lost_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, request: Callable[[], T], *, stop: threading.Event | None = None) -> T:
        """The request's result, however often it takes; its last error when patience ends.

        Raises:
            Stopped: `stop` was set.
        """
        first_failed: float | None = None
        failures = 0
        stop = stop or threading.Event()
        while not stop.is_set():
            try:
                result = request()
            except Exception as error:
                self._count(error)
                if not is_passing(error):
                    raise
                now = time.monotonic()
                first_failed = first_failed or now
                left = self._patience(error) - (now - first_failed)
                if left <= 0:
                    raise
                self._say_waiting(error, since=first_failed)
                delay = backoff_s(failures, first_s=FIRST_DELAY_S, longest_s=MAX_DELAY_S)
                stop.wait(min(delay, left))
                failures += 1
            else:
                self._say_back()
                return result
        raise Stopped

    def _count(self, error: Exception) -> None:
        from botocore.exceptions import ClientError

        if isinstance(error, ClientError):
            self.has_reached = True

    def _patience(self, error: Exception) -> float:
        if is_wrong_address(error) and not self.has_reached:
            return min(START_WAIT_S, wait_s())
        return wait_s()

    def _say_waiting(self, error: Exception, *, since: float) -> None:
        now = time.monotonic()
        if now - since < SAID_AFTER_S or _at_most.get() is not None:
            return
        with self.lock:
            self.lost_at = self.lost_at or since
            if self.said_at is not None:
                return
            self.said_at = now
        cause = one_line(error, max_chars=120)
        doubt = "" if self.has_reached else "; is AWS_ENDPOINT_URL right?"
        self.announce(
            f"store {self.name} does not answer ({cause}); waiting for it, at most "
            f"{wait_s():.0f} s (LORID_STORE_WAIT_S){doubt}"
        )

    def _say_back(self) -> None:
        self.has_reached = True
        if self.said_at is None:
            return
        with self.lock:
            since, self.lost_at, said, self.said_at = self.lost_at, None, self.said_at, None
        if since is not None and said is not None:
            self.announce(
                f"store {self.name} answers again after {time.monotonic() - since:.0f} s; going on"
            )


def backoff_s(num_waits: int, *, first_s: float, longest_s: float) -> float:
    """Seconds to wait after so many earlier waits: doubling up to `longest_s`.

    With jitter, so that those who failed together do not come back together.
    """
    return min(longest_s, first_s * 2 ** min(num_waits, 20)) * random.uniform(0.5, 1.0)

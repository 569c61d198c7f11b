"""Who may come in now: bounded numbers of questions and batches, and nobody while draining.

    with admission.admit("question"):     # raises Refused at once when full
        ...

Everything that waits is counted here, before its body is read, so memory is bounded and a refusal
takes no work. What `Retry-After` says is how long requests took lately.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Kind = Literal["question", "batch"]
MAX_RETRY_AFTER_S = 60
# How much the newest request counts in the mean of those before it.
NEWEST_WEIGHT = 0.1


class Refused(Exception):
    """A request that is answered without being begun."""

    def __init__(self, status: int, kind: str, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after_s = status, kind, retry_after_s


class Admission:
    """Counts what is inside; `limits` are the most of each kind."""

    def __init__(self, limits: dict[Kind, int]) -> None:
        self.limits = limits
        self.num_inside: dict[Kind, int] = dict.fromkeys(limits, 0)
        self.mean_s: dict[Kind, float] = dict.fromkeys(limits, 0.0)
        self.is_draining = False

    @contextmanager
    def admit(self, kind: Kind) -> Iterator[None]:
        """One request inside for the duration of the block.

        Raises:
            Refused: 429 when as many are inside as may be, 503 while draining.
        """
        if self.is_draining:
            raise self.draining()
        if self.num_inside[kind] >= self.limits[kind]:
            message = f"{self.limits[kind]} {kind} requests are at work or waiting; try again later"
            raise Refused(429, "too_many_requests", message, retry_after_s=self._patience(kind))
        self.num_inside[kind] += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.num_inside[kind] -= 1
            took = time.monotonic() - began
            self.mean_s[kind] += NEWEST_WEIGHT * (took - self.mean_s[kind])

    def draining(self) -> Refused:
        """The refusal of an endpoint that is going away."""
        return Refused(503, "draining", "this endpoint is going away; try again")

    def _patience(self, kind: Kind) -> int:
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(self.mean_s[kind])))

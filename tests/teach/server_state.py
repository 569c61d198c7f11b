"""How the misbehaving server behaves, which fault a request meets, and what the log holds."""

import math
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the server behaves; every field may be changed while it runs.

    `latency`: {"kind": "constant", "mean_s"}, "uniform" (0 to twice mean_s), "exponential", or
    {"kind": "lognormal", "median_s", "sigma"}. `faults`: probability by name. `stubborn`: share of
    the questions that meet this fault at every request. `numbered_models` puts the request's number
    into the answer's model. Limits of 0 are off.
    """

    seed: int = 0
    latency: Mapping[str, Any] = field(default_factory=lambda: {"kind": "constant", "mean_s": 0.0})
    faults: Mapping[str, float] = field(default_factory=dict)
    stubborn: Mapping[str, float] = field(default_factory=dict)
    numbered_models: bool = False
    max_faults_per_question: int = 1_000_000
    requests_per_minute: float = 0
    tokens_per_minute: float = 0
    max_in_flight: int = 0
    retry_after_s: float = 1.0
    rate_headers: bool = True
    models: tuple[str, ...] = ()
    api_key: str = ""
    batch_s: float = 0.0
    batch_faults: Mapping[str, float] = field(default_factory=dict)


class Bucket:
    """A token bucket that holds what one second, or a hundredth of a minute, allows."""

    def __init__(self) -> None:
        self.level, self.at, self.per_minute = 0.0, 0.0, 0.0

    def take(self, amount: float, *, per_minute: float) -> float:
        """Seconds until `amount` may be taken; 0 when it just was."""
        if per_minute <= 0:
            return 0.0
        now, size = time.monotonic(), max(per_minute / 60, amount)
        if per_minute != self.per_minute:
            self.level, self.at, self.per_minute = size, now, per_minute
        self.level = min(size, self.level + (now - self.at) * per_minute / 60)
        self.at = now
        if self.level >= amount:
            self.level -= amount
            return 0.0
        return (amount - self.level) / per_minute * 60


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What the log says about a request; `body` is a hash of all that was asked."""

    number: int
    question: str
    body: str
    model: str
    fault: str | None = None


class State:
    """Everything that the connections share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.requests, self.tokens = Bucket(), Bucket()
        self.in_flight = self.max_seen = self.num_requests = 0

    def note(self, event: str, ticket: Ticket) -> None:
        """One line of the log; requests in flight are those without an end."""
        self.in_flight += 1 if event == "received" else -1
        self.max_seen = max(self.max_seen, self.in_flight)
        self.log.append({"event": event, "at": time.time(), **asdict(ticket)})

    def latency_s(self) -> float:
        """A draw of the configured distribution."""
        latency = self.settings.latency
        kind, mean_s = latency["kind"], latency.get("mean_s", 0.0)
        if kind == "constant":
            return mean_s
        if kind == "uniform":
            return random.uniform(0, 2 * mean_s)
        if kind == "exponential":
            return random.expovariate(1 / mean_s)
        return math.exp(random.gauss(math.log(latency["median_s"]), latency["sigma"]))

    def fault_of(self, question: str) -> str | None:
        """The fault that this request of the question meets, mostly none."""
        settings = self.settings
        stubborn = draw(settings.stubborn, f"{settings.seed} {question}")
        if stubborn is not None:
            return stubborn
        if self.failed[question] >= settings.max_faults_per_question:
            return None
        fault = draw(settings.faults, f"{settings.seed} {question} {self.asked[question]}")
        self.failed[question] += fault is not None
        return fault


def draw(shares: Mapping[str, float], key: str) -> str | None:
    """The name that falls to this key, if any."""
    if not shares:
        return None
    point = random.Random(key).random()
    for name, share in shares.items():
        point -= share
        if point < 0:
            return name
    return None

"""The limits of the whole cluster: requests and tokens per time, and how many may be in flight.

    limiter = Limiter(Limits(requests_per_minute=500, max_in_flight=64), clock=time.monotonic)
    wait_s = limiter.take(tokens=800)       # 0.0: taken; else ask again after so many seconds
    limiter.correct(estimated=800, actual=650)
    limiter.throttled(wait_s=2.0)           # a 429

Pure: time comes from `clock`. Rates are buckets that hold little, so that no window of a minute (of
a second) sees more than its limit by more than a fiftieth. The number in flight follows AIMD: half
on a 429, a little more on every success. `lorid.distributed.teaching` makes it one actor.
"""

from collections.abc import Callable
from dataclasses import dataclass

SLACK_S = 0.02
"""How much of a rate may come at once: timers are no finer than milliseconds."""
SECONDS_BETWEEN_CUTS = 1.0
MIN_WAIT_S = 0.001


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server allows; None is no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_second: float | None = None
    max_in_flight: int = 64


class Bucket:
    """Fills at `rate` per second up to `burst`; may be overdrawn by what was estimated too low."""

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst = rate, burst
        self.level, self.filled_at = burst, now

    def missing_s(self, amount: float, *, now: float) -> float:
        """Seconds until `amount` is there; what is more than the bucket holds needs a full one."""
        self.level = min(self.burst, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        missing = min(amount, self.burst) - self.level
        # Rounding must not leave a hair missing for ever.
        return 0.0 if missing <= 1e-9 * max(1.0, amount) else max(missing / self.rate, MIN_WAIT_S)

    def take(self, amount: float) -> None:
        """Take it (or give it back, when negative)."""
        self.level = min(self.burst, self.level - amount)


class Limiter:
    """Decides when the next request may be sent, and how many may be under way."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float]) -> None:
        self.clock = clock
        now = clock()
        rates = [(limits.requests_per_minute, 60.0), (limits.requests_per_second, 1.0)]
        self.requests = [_bucket(limit / period, now) for limit, period in rates if limit]
        tokens = limits.tokens_per_minute
        # Half a second's worth, or one request larger than that.
        self.tokens = Bucket(rate=tokens / 60, burst=tokens / 120, now=now) if tokens else None
        self.max_in_flight = limits.max_in_flight
        self.window = float(limits.max_in_flight)
        self.paused_until = self.cut_at = now - SECONDS_BETWEEN_CUTS

    def take(self, *, tokens: float) -> float:
        """0.0 when a request of about so many tokens may go now; else seconds to wait."""
        now = self.clock()
        waits = [
            self.paused_until - now,
            *(bucket.missing_s(1, now=now) for bucket in self.requests),
        ]
        if self.tokens:
            waits.append(self.tokens.missing_s(tokens, now=now))
        wait = max(waits)
        if wait > 0:
            return wait
        for bucket in self.requests:
            bucket.take(1)
        self.correct(estimated=0, actual=tokens)
        return 0.0

    def correct(self, *, estimated: float, actual: float) -> None:
        """Count the tokens that a request really took."""
        if self.tokens:
            self.tokens.take(actual - estimated)

    def throttled(self, *, wait_s: float | None = None) -> None:
        """The server said 429. Those that were sent together count as one."""
        now = self.clock()
        if now - self.cut_at >= SECONDS_BETWEEN_CUTS:
            self.cut_at = now
            self.window = max(1.0, self.window / 2)
        if wait_s is not None:
            self.paused_until = max(self.paused_until, now + wait_s)

    def succeeded(self) -> None:
        """A response came."""
        self.window = min(float(self.max_in_flight), self.window + 1 / self.window)

    @property
    def num_slots(self) -> int:
        """How many requests may be in flight now."""
        return int(self.window)


def _bucket(rate: float, now: float) -> Bucket:
    return Bucket(rate=rate, burst=max(1.0, rate * SLACK_S), now=now)

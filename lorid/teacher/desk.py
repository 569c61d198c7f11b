"""The desk: where every request of a run is allowed, found in the ledger, and paid for.

    worker --- acquire(keys) --->  stored response | permit | stop
           --- settle(responses) ->  (durable in the ledger)
           --- fail(key, failure) ->

One desk per run. Workers keep requests in flight by themselves, as many as the desk gives them
slots (`Answer.num_slots`), so a response needs no round trip before the next request is sent; what
is asked of the desk is asked for many requests at once. A key is out to one worker at a time: the
same request twice is sent once. What a worker that died had out is free again when it comes back,
or after `DeskPolicy.permit_s`. `lorid.distributed.teaching` runs a desk as an actor.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorid.errors import ArtifactError
from lorid.sections import PriceConfig
from lorid.teacher.base import Usage
from lorid.teacher.failures import Failure
from lorid.teacher.ledger import Ledger, Stored
from lorid.teacher.limiter import Limiter
from lorid.teacher.prices import cost_of

LONG_POLL_S = 2.0
MAX_UNDURABLE = 1024
FIRST_SUCCESS_S = 30.0
MIN_FAILURES = 10
MEAN_WEIGHT = 0.02


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A request that a worker would like to send, and about how many tokens it reads."""

    key: str
    input_tokens: int


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why no request is sent any more; `error` names the class in `lorid.errors`."""

    error: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the desk says: responses that are there, keys that may be sent, slots, or stop."""

    stored: Sequence[Stored] = ()
    permitted: Sequence[str] = ()
    num_slots: int = 0
    stop: Stop | None = None


@dataclass(frozen=True, kw_only=True)
class DeskPolicy:
    """How a desk decides: who shares the slots, what it may cost, when it gives up."""

    num_workers: int = 1
    max_new_tokens: int = 512
    prices: PriceConfig | None = None
    is_batch: bool = False
    max_cost: float | None = None
    give_up_after_s: float = 300.0
    permit_s: float = 300.0

    def cost(self, usage: Usage) -> float:
        """What so many tokens cost."""
        if self.prices is None:
            return 0.0
        return cost_of(usage, prices=self.prices, is_batch=self.is_batch)


@dataclass
class _Out:
    """A request that a worker may have in flight."""

    worker: str
    since: float
    input_tokens: int
    estimate: float


@dataclass(kw_only=True)
class DeskStats:
    """Counts since the desk opened, but for `spent`, which is all that the ledger holds."""

    num_reused: int = 0
    num_responses: int = 0
    num_in_flight: int = 0
    num_failed: int = 0
    num_throttled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent: float = 0.0
    spent_now: float = 0.0
    num_known: int = 0
    num_torn: int = 0
    stop: Stop | None = None


@dataclass(kw_only=True)
class Desk:
    """See the file's docstring; every method runs on one event loop."""

    ledger: Ledger
    limiter: Limiter
    policy: DeskPolicy
    clock: Callable[[], float] = time.monotonic
    out: dict[str, _Out] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    stats: DeskStats = field(default_factory=DeskStats)
    stopped: Stop | None = None
    num_failed_in_a_row: int = 0
    failing_since: float | None = None
    has_succeeded: bool = False
    mean_output: float = 0.0
    input_tokens_out: int = 0
    expired_at: float = 0.0
    freed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.mean_output = float(self.policy.max_new_tokens)

    def join(self, worker: str) -> Answer:
        """A worker begins, perhaps again: what it had out it does not have any more."""
        self.workers.setdefault(worker, len(self.workers))
        for key in [key for key, out in self.out.items() if out.worker == worker]:
            self._take_back(key)
        return self._answer(worker)

    async def acquire(self, worker: str, wanted: Sequence[Wanted]) -> Answer:
        """Responses and permits for some of these; waits a while when there is none yet."""
        ends_at = self.clock() + LONG_POLL_S
        while True:
            if self.stopped is not None:
                return self._answer(worker)
            stored = [found for want in wanted if (found := self.ledger.find(want.key))]
            permitted, wait_s = self._permit(worker, wanted, {found.key for found in stored})
            self.stats.num_reused += len(stored)
            left = ends_at - self.clock()
            if stored or permitted or self.stopped is not None or left <= 0:
                return self._answer(worker, stored=stored, permitted=permitted)
            self.freed.clear()
            try:
                await asyncio.wait_for(self.freed.wait(), min(wait_s, left))
            except TimeoutError:
                continue

    async def settle(self, worker: str, responses: Sequence[Stored]) -> Answer:
        """Store what came; when this returns it may be used.

        Raises:
            ArtifactError: the store fails and fails.
        """
        for response in responses:
            out = self.out.get(response.key)
            usage = response.reply.usage
            self.limiter.succeeded()
            if out is not None:
                self.limiter.correct(estimated=out.estimate, actual=usage.total)
            self.mean_output += MEAN_WEIGHT * (usage.output_tokens - self.mean_output)
            self.stats.num_responses += 1
            self.stats.input_tokens += usage.input_tokens
            self.stats.output_tokens += usage.output_tokens
            self.stats.spent_now += response.cost
        self.has_succeeded, self.num_failed_in_a_row, self.failing_since = True, 0, None
        try:
            await self.ledger.add(responses)
        except ArtifactError as error:
            # Going on would pay for responses that nothing keeps.
            self.stop(Stop(error=type(error).__name__, message=str(error)))
            raise
        finally:
            for response in responses:
                self._drop(response.key)
        return self._answer(worker)

    async def fail(self, worker: str, key: str, failure: Failure | None) -> Answer:
        """A request brought nothing, or (None) was not sent; its key is free again."""
        self._take_back(key)
        if failure is None:
            return self._answer(worker)
        self.stats.num_failed += 1
        now = self.clock()
        if failure.kind == "throttled":
            self.stats.num_throttled += 1
            self.limiter.throttled(wait_s=failure.wait_s)
        self.num_failed_in_a_row += 1
        if self.failing_since is None:
            self.failing_since = now
        if failure.kind == "fatal":
            self.stop(Stop(error="TeacherRefused", message=failure.reason))
        elif failure.kind == "refused" and self._only_refused():
            self.stop(
                Stop(
                    error="TeacherRefused",
                    message=f"the first {self.num_failed_in_a_row} requests were all refused, the "
                    f"newest: {failure.reason}; check the teacher's settings (docs/teach.md)",
                )
            )
        elif self._is_hopeless(now):
            seconds = now - self.failing_since
            self.stop(
                Stop(
                    error="TeacherError",
                    message=f"the last {self.num_failed_in_a_row} requests in {seconds:.0f} s all "
                    f"failed; the newest: {failure.reason}; see to the server, then run again: "
                    "responses are kept",
                )
            )
        return self._answer(worker)

    def read_stats(self) -> DeskStats:
        """The counts of now."""
        stats = self.stats
        stats.num_in_flight, stats.spent, stats.stop = len(self.out), self.ledger.cost, self.stopped
        stats.num_known, stats.num_torn = len(self.ledger.lines), self.ledger.num_torn
        return stats

    def stop(self, stop: Stop) -> None:
        """Permit nothing any more; what is in flight is still taken."""
        self.stopped = self.stopped or stop
        self.freed.set()

    def _permit(
        self, worker: str, wanted: Sequence[Wanted], stored: set[str]
    ) -> tuple[list[str], float]:
        permitted: list[str] = []
        self._expire()
        if self.ledger.num_waiting > MAX_UNDURABLE:
            return permitted, LONG_POLL_S
        for want in wanted:
            if want.key in stored or want.key in self.out:
                continue
            if self._would_cost_too_much(want):
                return permitted, LONG_POLL_S
            estimate = want.input_tokens + self.mean_output
            wait_s = self.limiter.take(tokens=estimate)
            if wait_s > 0:
                return permitted, wait_s
            self.out[want.key] = _Out(worker, self.clock(), want.input_tokens, estimate)
            self.input_tokens_out += want.input_tokens
            permitted.append(want.key)
        return permitted, LONG_POLL_S

    def _would_cost_too_much(self, want: Wanted) -> bool:
        """Whether the cap could be passed: what is out is counted at the most it may cost."""
        cap = self.policy.max_cost
        if cap is None:
            return False
        inputs = want.input_tokens + self.input_tokens_out
        num = len(self.out) + 1
        most = Usage(input_tokens=inputs, output_tokens=num * self.policy.max_new_tokens)
        if self.ledger.cost + self.policy.cost(most) <= cap:
            return False
        if not self.out:
            currency = self.policy.prices.currency if self.policy.prices else ""
            self.stop(
                Stop(
                    error="BudgetSpent",
                    message=f"{self.ledger.cost:.4f} {currency} of teacher.max_cost={cap:g} are "
                    "spent and the next request might pass it; every response is kept: raise "
                    "teacher.max_cost and run again to go on",
                )
            )
        return True

    def _only_refused(self) -> bool:
        return not self.has_succeeded and self.num_failed_in_a_row >= MIN_FAILURES

    def _is_hopeless(self, now: float) -> bool:
        if self.num_failed_in_a_row < MIN_FAILURES or self.failing_since is None:
            return False
        bound = self.policy.give_up_after_s
        if not self.has_succeeded:
            bound = min(bound, FIRST_SUCCESS_S)
        return now - self.failing_since >= bound

    def _take_back(self, key: str) -> None:
        out = self._drop(key)
        if out is not None:
            self.limiter.correct(estimated=out.estimate, actual=0)

    def _drop(self, key: str) -> _Out | None:
        out = self.out.pop(key, None)
        if out is not None:
            self.input_tokens_out -= out.input_tokens
            self.freed.set()
        return out

    def _expire(self) -> None:
        now = self.clock()
        if now - self.expired_at < 1.0:
            return
        self.expired_at, oldest = now, now - self.policy.permit_s
        for key in [key for key, out in self.out.items() if out.since < oldest]:
            self._take_back(key)

    def _answer(self, worker: str, **found: Any) -> Answer:
        number = self.workers.get(worker, 0) % self.policy.num_workers
        slots, left_over = divmod(self.limiter.num_slots, self.policy.num_workers)
        # A worker without a slot would never ask, and so never hear of a new one.
        share = max(1, slots + (number < left_over))
        return Answer(num_slots=share, stop=self.stopped, **found)

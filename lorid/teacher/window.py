"""A worker's window to the desk: one request in, its durable response out.

    async with Window(desk, teacher=api, worker="w1", policy=..., identity=...) as window:
        response = await window.respond(request)

Requests wait here for the ledger's word or a permit, then for one of the slots that the desk gave
this worker, and are sent; what came is settled in groups. The slots are counted here, so that the
next request leaves the moment a response arrives.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol, TypeVar

from lorid import errors
from lorid.errors import LoridError, TeacherError
from lorid.teacher.base import CHARS_PER_TOKEN, Reply, Teacher, TeacherRequest
from lorid.teacher.desk import Answer, DeskPolicy, Stop, Wanted
from lorid.teacher.failures import Failed, Failure, delay_s
from lorid.teacher.hedging import hedged
from lorid.teacher.ledger import Stored

MAX_AT_ONCE = 1000
THROTTLED_TRIES = 4
"""A 429 is the server's pace, not a fault: it counts a quarter of a try."""
T = TypeVar("T")


class DeskCalls(Protocol):
    """The desk as a worker sees it, in this process or in another."""

    async def acquire(self, worker: str, wanted: Sequence[Wanted]) -> Answer:
        """See `Desk.acquire`."""
        ...

    async def settle(self, worker: str, responses: Sequence[Stored]) -> Answer:
        """See `Desk.settle`."""
        ...

    async def fail(self, worker: str, key: str, failure: Failure | None) -> Answer:
        """See `Desk.fail`."""
        ...


@dataclass
class _Waiting:
    """A request that wants the ledger's response (a result) or a permit (None)."""

    wanted: Wanted
    granted: asyncio.Future[Stored | None]


@dataclass(kw_only=True)
class Window:
    """See the file's docstring."""

    desk: DeskCalls
    teacher: Teacher
    worker: str
    policy: DeskPolicy
    identity: Mapping[str, Any]
    max_tries: int = 8
    hedge_after_s: float | None = None
    num_slots: int = 1
    num_busy: int = 0
    num_permits: int = 0
    queue: dict[str, list[_Waiting]] = field(default_factory=dict)
    unsettled: list[tuple[Stored, asyncio.Future[None]]] = field(default_factory=list)
    free: asyncio.Condition = field(default_factory=asyncio.Condition)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    stopped: Stop | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def respond(self, request: TeacherRequest) -> Stored:
        """The response to this request: the ledger's, or a new one that is in the ledger now.

        Raises:
            Failed: the server failed too often, or refuses this one request.
            LoridError: the whole stage stops; the desk says why.
        """
        key = request.key(self.identity)
        wanted = Wanted(key=key, input_tokens=len(request.prompt) // CHARS_PER_TOKEN + 1)
        tries, num_failed = 0.0, 0
        while True:
            found = await self._granted(wanted)
            if found is not None:
                return found
            try:
                await self._take_slot(key)
                reply = await self._sent(request, wanted)
            except Failed as failed:
                self._heed(await self.desk.fail(self.worker, key, failed.failure))
                self._raise_when_stopped()
                num_failed += 1
                is_throttled = failed.failure.kind == "throttled"
                tries += 1 / THROTTLED_TRIES if is_throttled else 1
                if failed.failure.kind == "refused" or tries >= self.max_tries:
                    raise
                await self.sleep(delay_s(num_failed))
            except BaseException:
                # Cancelled, or an engine that died: nobody may wait for this one.
                await asyncio.shield(self.desk.fail(self.worker, key, None))
                raise
            else:
                stored = self._stored(key, request, reply)
                await self._settled(stored)
                return stored

    def _stored(self, key: str, request: TeacherRequest, reply: Reply) -> Stored:
        return Stored(
            key=key,
            ask=request.ask,
            settings={
                **self.identity,
                "temperature": request.temperature,
                "seed": request.seed,
            },
            reply=reply,
            cost=self.policy.cost(reply.usage),
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    async def _granted(self, wanted: Wanted) -> Stored | None:
        self._raise_when_stopped()
        waiting = _Waiting(wanted, asyncio.get_running_loop().create_future())
        self.queue.setdefault(wanted.key, []).append(waiting)
        self._run("acquire", self._acquire_all)
        return await waiting.granted

    async def _take_slot(self, key: str) -> None:
        async with self.free:
            await self.free.wait_for(lambda: self.num_busy < self.num_slots or self.stopped)
            self.num_permits -= 1
            if self.stopped is None:
                self.num_busy += 1
                self.free.notify_all()
        if self.stopped is not None:
            await self.desk.fail(self.worker, key, None)
            self._raise_when_stopped()

    async def _sent(self, request: TeacherRequest, wanted: Wanted) -> Reply:
        try:
            return await hedged(
                lambda: self.teacher.ask(request),
                second=lambda: self._sent_again(request, wanted),
                after_s=self.hedge_after_s,
            )
        finally:
            await self._leave_slot()

    async def _sent_again(self, request: TeacherRequest, wanted: Wanted) -> Reply | None:
        """The request a second time, where limits and slots have room for it now."""
        if self.num_busy >= self.num_slots:
            return None
        self.num_busy += 1
        hedge = replace(wanted, key=f"{wanted.key}/hedge")
        try:
            answer = await self.desk.acquire(self.worker, [hedge])
            return await self.teacher.ask(request) if answer.permitted else None
        finally:
            await self._leave_slot()
            await self.desk.fail(self.worker, hedge.key, None)

    async def _leave_slot(self) -> None:
        self.num_busy -= 1
        async with self.free:
            self.free.notify_all()

    async def _settled(self, stored: Stored) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unsettled.append((stored, done))
        self._run("settle", self._settle_all)
        await done

    def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        task = self.tasks.get(name)
        if task is None or task.done():
            self.tasks[name] = asyncio.ensure_future(work())

    async def _acquire_all(self) -> None:
        try:
            while self.queue and self.stopped is None:
                await self._acquire(await self._room())
        except Exception as error:
            self._fail_all(error)
        if self.stopped is not None:
            self._fail_all(_as_error(self.stopped))

    async def _room(self) -> int:
        """How many permits are worth having, once it is worth asking for some.

        As many as slots are free, and half as many again in stock, so that no slot waits for the
        desk; asked for when half of the stock is used, so that the desk is not asked for each.
        """
        async with self.free:
            await self.free.wait_for(
                lambda: self.stopped or (self.num_slots and self.num_permits <= self._stock() // 2)
            )
            room = self._stock() - self.num_permits + max(0, self.num_slots - self.num_busy)
            return min(room, MAX_AT_ONCE)

    def _stock(self) -> int:
        return max(1, self.num_slots // 2)

    async def _acquire(self, room: int) -> None:
        firsts = [waiting[0].wanted for waiting in list(islice(self.queue.values(), room))]
        answer = await self.desk.acquire(self.worker, firsts)
        for stored in answer.stored:
            for waiting in self.queue.pop(stored.key, []):
                _resolve(waiting.granted, stored)
        for key in answer.permitted:
            self._hand_permit(key)
        if not answer.stored and not answer.permitted:
            # What others have out must not keep the rest from its turn.
            for want in firsts:
                self.queue[want.key] = self.queue.pop(want.key)
        self._heed(answer)

    def _hand_permit(self, key: str) -> None:
        waiting = self.queue.get(key, [])
        if waiting:
            self.num_permits += 1
            _resolve(waiting.pop(0).granted, None)
        if not waiting:
            self.queue.pop(key, None)

    async def _settle_all(self) -> None:
        while self.unsettled:
            group = self.unsettled[:MAX_AT_ONCE]
            self.unsettled = self.unsettled[MAX_AT_ONCE:]
            try:
                answer = await self.desk.settle(self.worker, [stored for stored, _ in group])
            except Exception as error:
                for _, done in group:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in group:
                    _resolve(done, None)
                self._heed(answer)

    def _heed(self, answer: Answer) -> None:
        grew = answer.num_slots > self.num_slots
        self.num_slots = answer.num_slots
        if answer.stop is not None:
            self.stopped = answer.stop
        if grew or self.stopped is not None:
            self._run("wake", self._wake_all)

    async def _wake_all(self) -> None:
        async with self.free:
            self.free.notify_all()

    def _fail_all(self, error: Exception) -> None:
        queue, self.queue = self.queue, {}
        for waiting in queue.values():
            for each in waiting:
                if not each.granted.done():
                    each.granted.set_exception(error)

    def _raise_when_stopped(self) -> None:
        if self.stopped is not None:
            raise _as_error(self.stopped)


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _as_error(stop: Stop) -> LoridError:
    kind = getattr(errors, stop.error, TeacherError)
    return kind(stop.message)

"""The slots of one engine, shared by single questions and items of batches.

    slots = SharedSlots(64, batch_share=0.25)
    async with slots.take(is_item=False):
        ...

Singles go first. Items of batches use every slot that nobody else wants; from the moment that a
single question is there until a while after the last one, they get their share only: what they hold
above it is not taken away, but not given again when it ends. Their share is at least one slot, so a
batch always moves.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

from lorid.method.roles import Role

# Singles seldom come alone: for so long after one, a batch does not take the engine back.
LINGER_S = 2.0


class SharedSlots:
    """`num_slots` in two classes; one event loop."""

    def __init__(
        self, num_slots: int, *, batch_share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.num_slots, self.clock = num_slots, clock
        self.num_batch_slots = max(1, int(num_slots * batch_share))
        self.num_singles = self.num_items = self.num_expected = 0
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {False: deque(), True: deque()}
        self._single_until = -float("inf")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def num_waiting(self) -> int:
        """How many wait for a slot."""
        return sum(len(queue) for queue in self._waiting.values())

    @asynccontextmanager
    async def take(self, *, is_item: bool) -> AsyncIterator[None]:
        """A slot for the duration of the block."""
        await self._acquire(is_item)
        try:
            yield
        finally:
            self._release(is_item)

    @contextmanager
    def expect(self, *, is_item: bool) -> Iterator[None]:
        """Say that somebody is there who will want slots now and then during the block."""
        self.num_expected += not is_item
        try:
            yield
        finally:
            self.num_expected -= not is_item
            if not is_item:
                self._note_single()
                self._wake_up_later()

    async def _acquire(self, is_item: bool) -> None:
        if not is_item:
            self._note_single()
        queue = self._waiting[is_item]
        if not queue and self._has_room(is_item):
            self._count(is_item, 1)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._wake_up_later()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The slot came at the same moment: somebody else gets it.
                self._release(is_item)
            else:
                with suppress(ValueError):
                    queue.remove(turn)
                self._hand_out()
            raise

    def _release(self, is_item: bool) -> None:
        self._count(is_item, -1)
        if not is_item:
            self._note_single()
        self._hand_out()

    def _hand_out(self) -> None:
        for is_item in (False, True):
            queue = self._waiting[is_item]
            while queue and self._has_room(is_item):
                turn = queue.popleft()
                if not turn.done():
                    self._count(is_item, 1)
                    turn.set_result(None)
        self._wake_up_later()

    def _has_room(self, is_item: bool) -> bool:
        if self.num_singles + self.num_items >= self.num_slots:
            return False
        if not is_item:
            return True
        is_there = self.num_singles or self.num_expected or self._waiting[False]
        is_shared = bool(is_there) or self._lingers_s() > 0
        return self.num_items < (self.num_batch_slots if is_shared else self.num_slots)

    def _lingers_s(self) -> float:
        return self._single_until - self.clock()

    def _note_single(self) -> None:
        self._single_until = self.clock() + LINGER_S

    def _count(self, is_item: bool, change: int) -> None:
        if is_item:
            self.num_items += change
        else:
            self.num_singles += change

    def _wake_up_later(self) -> None:
        """Items that wait only because a single was here lately are let in when that is over."""
        is_there = self.num_singles or self.num_expected
        if self._timer is not None or not self._waiting[True] or is_there:
            return
        wait_s = max(0.0, self._lingers_s()) + 0.01

        def look() -> None:
            self._timer = None
            self._hand_out()

        if self._lingers_s() > 0:
            self._timer = asyncio.get_running_loop().call_later(wait_s, look)


class TextSlots:
    """Slots for texts: those of the one engine, or of each role's own where roles are apart."""

    def __init__(self, num_slots: int, *, roles_apart: bool, batch_share: float) -> None:
        self.pools = [
            SharedSlots(num_slots, batch_share=batch_share)
            for _ in range(len(Role) if roles_apart else 1)
        ]
        self.num_slots = num_slots * len(self.pools)

    def of(self, role: Role) -> SharedSlots:
        """The slots that a text of this role takes one of."""
        return self.pools[list(Role).index(role) % len(self.pools)]

    @contextmanager
    def expect(self, *, is_item: bool) -> Iterator[None]:
        """Say that somebody is there who will want texts of each role during the block."""
        with ExitStack() as stack:
            for pool in self.pools:
                stack.enter_context(pool.expect(is_item=is_item))
            yield

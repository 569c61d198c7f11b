"""Calls of the StudentEngine, through whatever happens to its replicas.

    student = Student(handle)
    answered = await student.solve(request)
    async for event in student.solve_stream(request): ...

A call whose replica or engine dies is made again: on another one, or on the one that Serve starts
in its place, until the caller's deadline cancels. That is safe, since a text depends on its seed
alone. A stream is begun anew too, and what was sent already is left out; a text that is streamed
piece by piece is not, since its pieces cannot be told apart. Cancelling a call here cancels it in
the replica.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from grpc import StatusCode
from grpc.aio import AioRpcError
from ray.exceptions import ActorUnavailableError, RayActorError, TaskCancelledError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

from lorid.api import AttemptEvent, RoundEvent, SolveRequest, TripleCard
from lorid.artifacts.retries import backoff_s
from lorid.distributed.bodies import Answered, Unavailable, cause_of
from lorid.distributed.student import SolveEvent
from lorid.distributed.tracing import carrier
from lorid.errors import EngineDied
from lorid.method.feedback import Sampled, Transcript

Result = TypeVar("Result")
logger = logging.getLogger("ray.serve.lorid")


class Stopped(Exception):
    """A replica that is stopped has ended a call that nobody else has cancelled."""


# A replica that is gone, and an engine that is gone in one that is not.
GONE = (
    Stopped,
    RayActorError,
    ActorUnavailableError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    EngineDied,
)
# How gRPC says it: the connection broke, or a replica that stops ended its calls.
ENDED = (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0
# asyncio's, and Ray's own for a call that is cancelled.
CANCELLED = (asyncio.CancelledError, TaskCancelledError)


class Calls:
    """Calls through a Serve handle, made again when a replica is lost."""

    def __init__(self, handle: Any, *, on_lost: Callable[[], None] = lambda: None) -> None:
        self.handle, self.on_lost = handle, on_lost
        self._methods: dict[tuple[str, bool], Any] = {}

    async def call(self, method: str, *arguments: object, **options: object) -> Any:
        """What the method returns; whichever replica returns it."""
        return await self._through(lambda: self._call(method, *arguments, **options))

    async def pieces(self, method: str, *arguments: object) -> AsyncIterator[Any]:
        """What the method yields; begun anew only while nothing of it was given.

        Raises:
            Unavailable: the replica was lost after the first piece.
        """
        num_lost = 0
        has_begun = False
        while True:
            try:
                async for piece in self._stream(method, *arguments):
                    has_begun = True
                    yield piece
                return
            except Exception as error:
                if has_begun and is_of_lost_replica(error):
                    raise Unavailable from error
                num_lost = await self._again(error, num_lost)

    async def _through(self, call: Callable[[], Awaitable[Result]]) -> Result:
        num_lost = 0
        while True:
            try:
                return await call()
            except Exception as error:
                num_lost = await self._again(error, num_lost)

    async def _again(self, error: Exception, num_lost: int) -> int:
        """Wait before the next try, and count it; raises what trying again does not mend."""
        if not is_of_lost_replica(error):
            raise error
        self.on_lost()
        wait_s = backoff_s(num_lost, first_s=FIRST_WAIT_S, longest_s=LONGEST_WAIT_S)
        logger.warning("a replica was lost (%s); next try in %.1f s", type(error).__name__, wait_s)
        await asyncio.sleep(wait_s)
        return num_lost + 1

    def _method(self, name: str, *, stream: bool = False) -> Any:
        """The handle of a method: Serve makes one for every call that does not keep it."""
        key = name, stream
        if key not in self._methods:
            handle = self.handle.options(stream=True) if stream else self.handle
            self._methods[key] = getattr(handle, name)
        return self._methods[key]

    async def _call(self, method: str, *arguments: object, **options: object) -> Any:
        response = self._method(method).remote(*arguments, **options)
        has_ended = False
        try:
            result = await response
            has_ended = True
            return result
        except CANCELLED as error:
            raise _cancelled_or_lost() from error
        finally:
            if not has_ended:
                response.cancel()

    async def _stream(self, method: str, *arguments: object) -> AsyncIterator[Any]:
        response = self._method(method, stream=True).remote(*arguments)
        has_ended = False
        try:
            async for item in response:
                yield item
            has_ended = True
        except CANCELLED as error:
            raise _cancelled_or_lost() from error
        finally:
            if not has_ended:
                response.cancel()


class Student(Calls):
    """The deployment of StudentEngine behind a Serve handle.

    `may_sleep`: at times no engine runs, and asking whether it is ready must not wake one.
    """

    def __init__(
        self, handle: Any, *, on_lost: Callable[[], None], may_sleep: bool = False
    ) -> None:
        super().__init__(handle, on_lost=on_lost)
        self.may_sleep = may_sleep
        self._was_ready: dict[str, Any] | None = None

    async def solve(self, request: SolveRequest, *, is_item: bool = False) -> Answered[Transcript]:
        """Solve one question."""
        return await self.call("solve", request, is_item=is_item, trace=carrier())

    async def answer_alone(
        self,
        question: str,
        role: str | None,
        seed: int | None,
        max_tokens: int | None,
        *,
        is_item: bool = False,
    ) -> Answered[Sampled]:
        """One text of one role."""
        arguments = (question, role, seed, max_tokens, carrier())
        return await self.call("answer_alone", *arguments, is_item=is_item)

    async def solve_stream(
        self, request: SolveRequest
    ) -> AsyncIterator[SolveEvent | Answered[Transcript]]:
        """What happens while a question is solved, each thing once, then the answer."""
        sent: set[tuple[object, ...]] = set()
        num_lost, trace = 0, carrier()
        while True:
            try:
                async for event in self._stream("solve_stream", request, trace):
                    key = _key(event)
                    if key not in sent:
                        sent.add(key)
                        yield event
                return
            except Exception as error:
                num_lost = await self._again(error, num_lost)

    async def answer_alone_stream(
        self, question: str, role: str | None, seed: int | None, max_tokens: int | None
    ) -> AsyncIterator[str | Answered[Sampled]]:
        """The pieces of one text, then the whole; raises what `pieces` does."""
        arguments = (question, role, seed, max_tokens, carrier())
        async for piece in self.pieces("answer_alone_stream", *arguments):
            yield piece

    async def ready(self) -> dict[str, Any]:
        """Load what is not loaded yet; what one replica says, or said where all may sleep."""
        if self._was_ready is not None:
            return self._was_ready
        status = await self._call("ready")
        if self.may_sleep:
            self._was_ready = status
        return status

    async def status(self) -> dict[str, Any]:
        """Which triple one replica serves."""
        return await self._call("status")

    async def card(self) -> TripleCard:
        """What is known of the triple that one replica serves."""
        return await self._call("card")


def by_grpc(handle: Any) -> Any:
    """A Serve handle whose calls take less time than calls of Ray's actors.

    They go to the port that every replica has open anyway, behind Ray's token.
    """
    return handle.options(
        _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )


def is_of_lost_replica(error: Exception) -> bool:
    """Whether a call failed because nobody is there any more, rather than by what it asked for."""
    if isinstance(error, AioRpcError):
        return error.code() in ENDED
    return isinstance(error, GONE) or isinstance(cause_of(error), GONE)


def _cancelled_or_lost() -> BaseException:
    """What a cancelled call is: ours, where this task is cancelled; else the replica ended it."""
    task = asyncio.current_task()
    is_ours = task is not None and task.cancelling()
    return asyncio.CancelledError() if is_ours else Stopped("the replica ended the call")


def _key(event: SolveEvent | Answered[Transcript]) -> tuple[object, ...]:
    if isinstance(event, AttemptEvent):
        return "attempt", event.round, event.role
    if isinstance(event, RoundEvent):
        return "round", event.round
    return ("answer",)

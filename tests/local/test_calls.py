"""Calls whose replica goes away are made again, and those that somebody cancels are not."""

import asyncio
from collections.abc import Generator
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorDiedError, TaskCancelledError

from lorid.distributed.calls import Calls
from lorid.errors import EngineDied


class FakeHandle:
    """In place of Serve's: calls end as they are told to, one after the other."""

    def __init__(self, *ends: Any) -> None:
        self.ends, self.num_cancelled = list(ends), 0

    @property
    def work(self) -> "FakeHandle":
        return self

    def remote(self) -> "FakeResponse":
        return FakeResponse(self, self.ends.pop(0))


class FakeResponse:
    def __init__(self, handle: FakeHandle, end: Any) -> None:
        self.handle, self.end = handle, end

    def __await__(self) -> Generator[Any, None, Any]:
        if self.end is None:
            yield from asyncio.get_running_loop().create_future()
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def cancel(self) -> None:
        self.handle.num_cancelled += 1


def rpc_error(code: StatusCode) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata())


@pytest.mark.parametrize(
    "end",
    [
        rpc_error(StatusCode.UNAVAILABLE),
        rpc_error(StatusCode.CANCELLED),
        asyncio.CancelledError(),
        TaskCancelledError(),
        ActorDiedError(),
        EngineDied("killed"),
    ],
)
async def test_a_call_that_a_replica_does_not_finish_is_made_again(end):
    lost: list[bool] = []
    calls = Calls(FakeHandle(end, "answer"), on_lost=lambda: lost.append(True))
    assert await calls.call("work") == "answer"
    assert lost == [True]


@pytest.mark.parametrize("end", [rpc_error(StatusCode.RESOURCE_EXHAUSTED), ValueError("no")])
async def test_what_trying_again_does_not_mend_is_raised(end):
    with pytest.raises(type(end)):
        await Calls(FakeHandle(end)).call("work")


async def test_a_caller_that_is_cancelled_cancels_its_call_and_asks_no_more():
    handle = FakeHandle(None)
    task = asyncio.create_task(Calls(handle).call("work"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert handle.num_cancelled == 1


async def test_a_deadline_of_the_caller_is_a_cancellation_too():
    handle = FakeHandle(None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Calls(handle).call("work")
    assert handle.num_cancelled == 1

"""A slow request is sent a second time, and the first answer of the two counts.

Off by default (`teacher.api.hedge_after_s`): a provider may charge for both.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def hedged(
    first: Callable[[], Awaitable[T]],
    *,
    second: Callable[[], Awaitable[T | None]],
    after_s: float | None,
) -> T:
    """The result of `first`, or that of `second`, begun after so many seconds, if it came earlier.

    `second` returns None when it may not be sent. When both fail the error is the first's.
    """
    if after_s is None:
        return await first()
    main = asyncio.ensure_future(first())
    racing: set[asyncio.Future[T | None]] = {main}  # type: ignore[arg-type]
    try:
        done, _ = await asyncio.wait(racing, timeout=after_s)
        if not done:
            racing.add(asyncio.ensure_future(second()))
        while racing:
            done, racing = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None and (result := task.result()) is not None:
                    return result
        return main.result()
    finally:
        for task in racing:
            task.cancel()
        await asyncio.gather(*racing, return_exceptions=True)

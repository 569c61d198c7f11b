"""Requests to a store, several at once: all of a few, or one after the other of many.

    entries = all_at_once(upload, paths, num_at_once=8)
    for record in each_at_once(read, addresses, num_at_once=24): ...

The first error ends either, and what has not begun is not begun.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def all_at_once(work: Callable[[T], R], items: Sequence[T], *, num_at_once: int) -> list[R]:
    """Results in order."""
    if len(items) <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(num_at_once, thread_name_prefix="lorid-files") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def each_at_once(work: Callable[[T], R], items: Iterable[T], *, num_at_once: int) -> Iterator[R]:
    """Results in order, as they are asked for: at most twice `num_at_once` are begun and unused."""
    begun: deque[Future[R]] = deque()
    with ThreadPoolExecutor(num_at_once, thread_name_prefix="lorid-records") as pool:
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) == 2 * num_at_once:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

"""Grading of any number of items through an endpoint, whatever happens on the way.

    with Client(url) as client:
        for row in grade_all(client, items, seed=7):      # in the order in which they finish
            ...

Items go in requests of bounded size, and rows come as they finish. A request that is refused for
now, or cut off, is sent again with the items that are still open, after the wait that the endpoint
asks for; `patience_s` without a single new row ends it. So does an endpoint that was never there.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lorid.artifacts.retries import backoff_s
from lorid.client import Client
from lorid.errors import EndpointBusy, ServeError

MAX_ITEMS_PER_REQUEST = 1000
MAX_BYTES_PER_REQUEST = 4 * 1024**2
PATIENCE_S = 300.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0
# Errors of an item that may be over when it is sent again, and how often that is tried.
PASSING_ERRORS = frozenset({"deadline_exceeded", "unavailable", "draining", "internal_error"})
MAX_TRIES = 5

Item = Mapping[str, Any]


def grade_all(
    client: Client,
    items: Iterable[Item],
    *,
    seed: int | None = None,
    max_rounds: int | None = None,
    rule: str | None = None,
    include_transcripts: bool = False,
    include_feedback: bool = False,
    items_per_request: int = MAX_ITEMS_PER_REQUEST,
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, Any]]:
    """Results of all items, each once; their ids must differ.

    Raises:
        ServeError: the endpoint refuses the request itself, was never there, or gave no new row
            for `patience_s`. What came before stays good: grade the rest later.
    """
    options: dict[str, Any] = {
        "seed": seed,
        "max_rounds": max_rounds,
        "rule": rule,
        "include_transcripts": include_transcripts,
        "include_feedback": include_feedback,
    }
    batch = _Batch(client, options=options, patience_s=patience_s, sleep=sleep)
    for chunk in in_requests(items, items_per_request=items_per_request):
        yield from batch.rows(chunk)


def in_requests(items: Iterable[Item], *, items_per_request: int) -> Iterator[list[Item]]:
    """Items in lists that fit in one request each."""
    chunk: list[Item] = []
    num_bytes = 0
    for item in items:
        size = len(json.dumps(item))
        is_full = len(chunk) == items_per_request or num_bytes + size > MAX_BYTES_PER_REQUEST
        if chunk and is_full:
            yield chunk
            chunk, num_bytes = [], 0
        chunk.append(item)
        num_bytes += size
    if chunk:
        yield chunk


class _Batch:
    def __init__(
        self,
        client: Client,
        *,
        options: Mapping[str, Any],
        patience_s: float,
        sleep: Callable[[float], None],
    ) -> None:
        self.client, self.options = client, options
        self.patience_s, self.sleep = patience_s, sleep
        self.was_there = False
        self.last_row = time.monotonic()

    def rows(self, chunk: list[Item]) -> Iterator[dict[str, Any]]:
        """One request's rows, in as many tries as it takes."""
        todo = {str(item["id"]): item for item in chunk}
        tries: dict[str, int] = {}
        num_waits = 0
        self.last_row = time.monotonic()
        while todo:
            before = len(todo)
            trouble: ServeError | None = None
            try:
                for row in self.client.grade_stream(list(todo.values()), **self.options):
                    self.was_there = True
                    if _is_passing(row) and _next_try(tries, row["id"]) < MAX_TRIES:
                        continue
                    if todo.pop(row["id"], None) is not None:
                        self.last_row = time.monotonic()
                        yield row
            except EndpointBusy as error:
                trouble = error
            if todo:
                num_waits = 0 if len(todo) < before else num_waits + 1
                self._wait(trouble, num_waits)

    def _wait(self, trouble: ServeError | None, num_waits: int) -> None:
        if isinstance(trouble, EndpointBusy) and trouble.is_absent and not self.was_there:
            raise trouble
        if time.monotonic() - self.last_row > self.patience_s:
            raise trouble or ServeError(
                f"the endpoint gave no result for {self.patience_s:.0f} s; run again to go on"
            )
        asked = trouble.retry_after_s if isinstance(trouble, EndpointBusy) else None
        wait_s = backoff_s(num_waits, first_s=FIRST_WAIT_S, longest_s=LONGEST_WAIT_S)
        self.sleep(max(wait_s, asked or 0.0))


def _is_passing(row: Mapping[str, Any]) -> bool:
    return row.get("error_type") in PASSING_ERRORS


def _next_try(tries: dict[str, int], name: str) -> int:
    tries[name] = tries.get(name, 0) + 1
    return tries[name]

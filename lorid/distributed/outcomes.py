"""What comes back for a question from whoever asks it: online.py by HTTP, offline.py by Ray Data.

for outcome in asker.attempts(problems):
    log.add(outcome.row) if outcome.row else errors.append(outcome)
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, Protocol, TypeVar

from lorid.method.problems import Problem

# Of these errors the question itself is the cause: to ask again is useless.
LASTING = frozenset({"bad_item", "invalid_request"})
# Folders of a log: attempts by mutual feedback, and texts of the base alone.
MUTUAL, BASE = "mutual/", "base/"
NO_ATTEMPTS: Mapping[str, Any] = {"intuitive": [], "knowledge": [], "deep": []}
MAX_UNREAD = 256
LOOK_S = 0.2
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A question's row, or why there is none; `kind` is the endpoint's type of the error.

    `is_logged` when whoever asked has put the row into the store already.
    """

    problem: Problem
    row: Mapping[str, Any] | None
    error: str = ""
    kind: str = ""
    is_logged: bool = False

    @classmethod
    def failed(cls, problem: Problem, error: str, *, kind: str) -> "Outcome":
        """The outcome of a question that got nothing."""
        return cls(problem=problem, row=None, error=error, kind=kind)

    @property
    def may_pass(self) -> bool:
        """Whether to ask again may help."""
        return self.row is None and self.kind not in LASTING

    def to_error_row(self) -> dict[str, str]:
        """A line of the evaluation's `errors.jsonl`."""
        return {
            "problem_id": self.problem.problem_id,
            "question": self.problem.question,
            "error": self.error,
            "error_type": self.kind,
        }


class Asker(Protocol):
    """Asks one triple and its base."""

    def attempts(self, problems: Sequence[Problem]) -> Iterator[Outcome]:
        """What each question got by mutual feedback, in any order, as it is there."""
        ...

    def base_texts(self, problems: Sequence[Problem]) -> Iterator[Outcome]:
        """The base's own answers: rows of `text` and `finish_reason`."""
        ...


def attempts_row(problem: Problem, row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the attempts file: the problem as it is now, with the texts that were drawn."""
    texts = {name: row[name] for name in NO_ATTEMPTS}
    return {
        "question": problem.question,
        **texts,
        "problem_id": problem.problem_id,
        "gold": problem.answer,
        "family": problem.family,
    }


def from_threads(
    work: Callable[[T], Iterator[R]], parts: Iterable[T], *, num_threads: int
) -> Iterator[R]:
    """What `work` gives for all parts, from so many threads, as it comes.

    At most `MAX_UNREAD` results wait to be read. The first exception comes out; leaving early ends
    the threads after what they have under way.
    """
    pool = _Threads(work, parts)
    threads = [threading.Thread(target=pool.run, daemon=True) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    try:
        while True:
            try:
                yield pool.results.get(timeout=LOOK_S)
            except Empty:
                if pool.error is None and any(thread.is_alive() for thread in threads):
                    continue
                # What was put between the two looks.
                while not pool.results.empty():
                    yield pool.results.get()
                if pool.error is not None:
                    raise pool.error from None
                return
    finally:
        pool.over.set()


class _Threads:
    def __init__(self, work: Callable[[Any], Iterator[Any]], parts: Iterable[Any]) -> None:
        self.work, self.parts = work, iter(parts)
        self.lock = threading.Lock()
        self.results: Queue[Any] = Queue(MAX_UNREAD)
        self.over = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            # After an error nothing new is begun; what others have under way still comes.
            while not self.over.is_set() and self.error is None:
                with self.lock:
                    part = next(self.parts, self)
                if part is self:
                    return
                for result in self.work(part):
                    if not self._put(result):
                        return
        except BaseException as error:
            self.error = self.error or error

    def _put(self, result: object) -> bool:
        while not self.over.is_set():
            try:
                self.results.put(result, timeout=LOOK_S)
            except Full:
                continue
            return True
        return False

r"""Formulas compared in worker processes with limits, since formulas come from strangers.

    with SymbolicPool() as pool:
        pool.compare(SymbolicQuestion(kind="expression", a=r"\sqrt{8}", b=r"2\sqrt{2}"))

Computer algebra has no bound of its own: C code ignores signals and `9^{9^{9}}` needs no loop. So
each worker has limits of CPU time and memory, its owner has a deadline, and a worker that exceeds
either is replaced while the pair is "not equal: timed out". Workers start at the first question,
see neither the environment's secrets nor lorid's modules, and end with the pool or its process.
"""

import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from lorid.errors import CheckerError
from lorid.method.formulas import is_bounded

WORKER = Path(__file__).with_name("symbolic_worker.py")
START_TIMEOUT_S = 60.0
# A worker on a busy machine may wait for its turn this many times longer than it computes.
PATIENCE = 8
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH")


@dataclass(frozen=True, kw_only=True)
class SymbolicQuestion:
    """Two formulas in LaTeX. With `step`, `b` is a decimal whose last place is worth `step`."""

    kind: Literal["expression", "relation"]
    a: str
    b: str
    step: str | None = None


@dataclass(frozen=True, kw_only=True)
class SymbolicAnswer:
    """Whether they are equal, and why."""

    equal: bool
    reason: str


class SymbolicPool:
    """Up to `num_workers` processes; usable from any thread, also before and after a fork."""

    def __init__(
        self, *, num_workers: int = 1, cpu_limit_s: int = 2, memory_limit_mib: int = 1024
    ) -> None:
        self.cpu_limit_s, self.memory_limit_mib = cpu_limit_s, memory_limit_mib
        self._seats: queue.LifoQueue[_Seat] = queue.LifoQueue()
        self._all = [_Seat() for _ in range(num_workers)]
        for seat in self._all:
            self._seats.put(seat)
        # Ends the processes when the pool is forgotten, or the interpreter ends.
        self._finalizer = weakref.finalize(self, _end_all, self._all)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next question would start new ones."""
        _end_all(self._all)

    def compare(self, question: SymbolicQuestion) -> SymbolicAnswer:
        """Ask a worker; one that dies or is late is replaced, and the pair is not equal.

        Raises:
            CheckerError: no worker can start.
        """
        if not (is_bounded(question.a) and is_bounded(question.b)):
            return SymbolicAnswer(equal=False, reason="different as text, too large to compute")
        request = {"kind": question.kind, "a": question.a, "b": question.b}
        if question.step is not None:
            request["step"] = question.step
        seat = self._seats.get()
        try:
            return seat.ask(request, self)
        finally:
            self._seats.put(seat)


class _Seat:
    """A place for one worker, which may be empty, dead, or another process's after a fork."""

    def __init__(self) -> None:
        self.worker: _Worker | None = None
        self.owner_pid = 0

    def ask(self, request: dict[str, str], pool: SymbolicPool) -> SymbolicAnswer:
        if self.worker is None or self.owner_pid != os.getpid() or not self.worker.is_alive:
            self.worker = _Worker(cpu_s=pool.cpu_limit_s, memory_mib=pool.memory_limit_mib)
            self.owner_pid = os.getpid()
        try:
            answer = self.worker.ask(request, timeout_s=PATIENCE * pool.cpu_limit_s)
            return SymbolicAnswer(equal=bool(answer["equal"]), reason=str(answer["reason"]))
        except (TimeoutError, OSError, ValueError):
            self.end()
            return SymbolicAnswer(equal=False, reason="timed out")
        except BaseException:
            # An interrupt between question and answer would leave the answer to the next pair.
            self.end()
            raise

    def end(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None and self.owner_pid == os.getpid():
            worker.end()


class _Worker:
    """One process."""

    def __init__(self, *, cpu_s: int, memory_mib: int) -> None:
        environment = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        # -P: the script's own folder is not searched, so lorid's file names shadow nothing.
        command = [sys.executable, "-P", str(WORKER), str(memory_mib), str(cpu_s)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            # An interrupt at the terminal is for the owner, which ends its workers itself.
            start_new_session=True,
        )
        self._received = b""
        try:
            self._read_line(START_TIMEOUT_S)
        except TimeoutError as error:
            self.end()
            raise CheckerError(
                "the answer checker's worker does not start; see why with: "
                f"{sys.executable} -c 'import math_verify, sympy', then install the lock again"
            ) from error
        except BaseException:
            self.end()
            raise

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def ask(self, request: dict[str, str], *, timeout_s: float) -> dict[str, Any]:
        _pipe(self.process.stdin).write(json.dumps(request).encode() + b"\n")
        _pipe(self.process.stdin).flush()
        return json.loads(self._read_line(timeout_s))

    def _read_line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        source = _pipe(self.process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                chunk = os.read(source.fileno(), 65536)
                if not chunk:
                    raise TimeoutError
                self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def end(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()
        self.process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise OSError("the worker has no pipe")
    return pipe


_ENDING = threading.Lock()


def _end_all(seats: list[_Seat]) -> None:
    with _ENDING:
        for seat in seats:
            seat.end()

"""A lease on a run's name: one driver at a time, and the second is told who holds it.

    with held(store, "my-run", announce=print):
        ...

Built on conditional creation alone, which every server honours. A lease is a chain of numbered
entries, `leases/{run}/{number}.json`; the newest one counts. To take, to renew and to give back are
one act, creating the next number, so of a holder that renews and a driver that takes over exactly
one succeeds. Entries of old numbers are removed.

A holder renews every 15 s for 60 s. After a kill -9 the next driver takes over at once on the same
machine, where it sees that the process is gone; elsewhere when the lease has expired *and* no
renewal came while it watched for longer than a renewal takes, so clocks need not agree. Artifacts
do not rest on leases: their records are conditional themselves.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lorid.artifacts.retries import waiting_at_most
from lorid.artifacts.store import ArtifactStore
from lorid.errors import ArtifactDrifted, ArtifactError, ArtifactIncomplete, RunTaken
from lorid.interrupts import interrupt_main_thread

DURATION_S = 60.0
RENEW_S = 15.0
WATCH_S = 20.0
RELEASE_WAIT_S = 5.0
NUM_KEPT = 8
Announce = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who holds a run's name; times in seconds since 1970, `machine` names boot and container."""

    holder: str
    host: str
    machine: str
    pid: int
    started: float
    since: float
    until: float
    is_released: bool = False

    def describe(self) -> str:
        """`host desk, process 17, since 10:00:00, until 10:01:00 UTC unless renewed`."""
        return (
            f"host {self.host}, process {self.pid}, since {_clock(self.since)}, "
            f"until {_clock(self.until)} UTC unless renewed"
        )

    def is_dead(self) -> bool:
        """Whether its process ran on this machine and is gone."""
        if self.machine != _machine():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


@contextmanager
def held(
    store: ArtifactStore,
    run: str,
    *,
    announce: Announce,
    duration_s: float = DURATION_S,
    renew_s: float = RENEW_S,
    watch_s: float = WATCH_S,
) -> Iterator[None]:
    """Hold a run's name for the duration of the block, renewed by a thread, then give it back.

    When somebody takes the name by `lorid runs unlock`, the main thread is interrupted.

    Raises:
        RunTaken: another driver holds it, or took it over meanwhile.
        ArtifactError: the store cannot be used.
    """
    chain = _Chain(store=store, run=run)
    lease = _take(chain, announce=announce, duration_s=duration_s, watch_s=watch_s)
    keeper = _Keeper(chain, lease, duration_s=duration_s, renew_s=renew_s)
    keeper.start()
    try:
        yield
    except KeyboardInterrupt:
        if keeper.taken_by is not None:
            raise _taken(chain, keeper.taken_by) from None
        raise
    finally:
        keeper.ended.set()
        keeper.join(RELEASE_WAIT_S)  # it may wait for a server that is gone
        if keeper.taken_by is None:
            # A server that is gone must not hold up the end; then the lease expires by itself.
            with suppress(ArtifactError), waiting_at_most(RELEASE_WAIT_S):
                chain.append(replace(lease, is_released=True))
    if keeper.taken_by is not None:
        raise _taken(chain, keeper.taken_by)


def unlock(store: ArtifactStore, run: str) -> str:
    """Take a run's name from whoever holds it; returns a line that says what was done."""
    chain = _Chain(store=store, run=run)
    lease = chain.newest()
    if lease is None or lease.is_released:
        return f"nobody holds {run}"
    if not chain.append(replace(_own(duration_s=0), is_released=True)):
        return unlock(store, run)
    return f"{run} was held by {lease.describe()}; it is free now"


@dataclass
class _Chain:
    """The numbered entries of one run; `number` is the newest that was read or written."""

    store: ArtifactStore
    run: str
    number: int = 0

    def newest(self) -> Lease | None:
        """The lease that counts now, released ones too."""
        while True:
            numbers = self._numbers()
            self.number = max(numbers, default=0)
            if not numbers:
                return None
            try:
                text = self.store.read(self._key(self.number))
            except ArtifactIncomplete:  # removed between the two: there is a newer one
                continue
            try:
                return Lease(**json.loads(text))
            except (TypeError, ValueError) as error:
                raise ArtifactDrifted(
                    f"{self._key(self.number)} in {self.store.uri} is no lease; remove it"
                ) from error

    def append(self, lease: Lease) -> bool:
        """Write the next entry; False when another came first."""
        number = self.number + 1
        text = json.dumps(asdict(lease), indent=1).encode()
        if not self.store.write(self._key(number), text, if_absent=True):
            return False
        # One who read long ago may create a number that was used and removed: the newest counts.
        numbers = self._numbers()
        if max(numbers, default=number) > number:
            self.store.remove(self._key(number))
            return False
        self.number = number
        for old in numbers:
            if old <= number - NUM_KEPT:
                self.store.remove(self._key(old))
        return True

    def _numbers(self) -> list[int]:
        names = (key.rpartition("/")[2] for key in self.store.list(f"leases/{self.run}/"))
        return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()]

    def _key(self, number: int) -> str:
        return f"leases/{self.run}/{number:08d}.json"


class _Keeper(threading.Thread):
    """Renews a lease until `ended`; finds out when another has taken it."""

    def __init__(self, chain: _Chain, lease: Lease, *, duration_s: float, renew_s: float) -> None:
        super().__init__(name=f"lease-{chain.run}", daemon=True)
        self.chain, self.lease = chain, lease
        self.duration_s, self.renew_s = duration_s, renew_s
        self.ended = threading.Event()
        self.taken_by: Lease | None = None
        self.is_of_main = threading.current_thread() is threading.main_thread()

    def run(self) -> None:
        while not self.ended.wait(self.renew_s):
            # A server that is gone is no reason to stop: the chain shows later whether another
            # driver came in between.
            with suppress(ArtifactError), waiting_at_most(self.renew_s):
                if self._renew():
                    continue
                self.taken_by = self.chain.newest() or self.lease
                if self.is_of_main and not self.ended.is_set():
                    interrupt_main_thread()
                return

    def _renew(self) -> bool:
        renewed = replace(self.lease, until=time.time() + self.duration_s)
        if self.chain.append(renewed):
            return True
        newest = self.chain.newest()
        return newest is not None and newest.holder == self.lease.holder


def _take(chain: _Chain, *, announce: Announce, duration_s: float, watch_s: float) -> Lease:
    while True:
        other = chain.newest()
        if other is not None and not other.is_released and not other.is_dead():
            if other.until > time.time():
                raise _taken(chain, other)
            announce(
                f"  the lease of {chain.run} ({other.describe()}) has expired; "
                f"watching {watch_s:.0f} s that nobody renews it"
            )
            if not _stays_the_same(chain, seconds=watch_s):
                continue
        lease = _own(duration_s=duration_s)
        if chain.append(lease):
            if other is not None and not other.is_released:
                announce(f"  took over {chain.run} from a driver that is gone ({other.describe()})")
            return lease


def _stays_the_same(chain: _Chain, *, seconds: float) -> bool:
    number, ends = chain.number, time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(min(1.0, seconds / 5))
        chain.newest()
        if chain.number != number:
            return False
    return True


def _own(*, duration_s: float) -> Lease:
    now = time.time()
    return Lease(
        holder=secrets.token_hex(8),
        host=platform.node(),
        machine=_machine(),
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        since=now,
        until=now + duration_s,
    )


def _machine() -> str:
    """This boot of this machine and the namespace of its processes: where a pid has a meaning."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


def _taken(chain: _Chain, lease: Lease) -> RunTaken:
    run = chain.run
    if lease.is_released:
        return RunTaken(f"run {run!r} was unlocked from {lease.host}, process {lease.pid}; stopped")
    return RunTaken(
        f"run {run!r} is held by {lease.describe()}; wait for it, stop it, choose another name "
        "(name=...), or, when it is gone for sure: "
        f"lorid runs unlock {run} --store {chain.store.uri}"
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")

"""One driver a run name: the second is told who holds it, and takes over when it is gone."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lorid.artifacts import leases
from lorid.artifacts.leases import held, unlock
from lorid.errors import RunTaken

HOLD = """
import sys, time
from lorid.artifacts.leases import held
from lorid.artifacts.store import open_store
with held(open_store(sys.argv[1]), "r", announce=print):
    print("held", flush=True)
    time.sleep(600)
"""


def ignore(line: str) -> None:
    pass


def test_the_second_driver_is_told_who_holds_the_run_until_it_ends(store):
    with held(store, "r", announce=ignore):
        with pytest.raises(RunTaken) as caught, held(store, "r", announce=ignore):
            pass
        assert f"process {os.getpid()}" in str(caught.value)
        assert "lorid runs unlock r" in str(caught.value)
        assert caught.value.exit_code == 2
        with held(store, "another", announce=ignore):
            pass
    with held(store, "r", announce=ignore):
        pass
    with pytest.raises(KeyboardInterrupt), held(store, "r", announce=ignore):
        raise KeyboardInterrupt
    with held(store, "r", announce=ignore):
        pass


def test_of_many_drivers_at_once_one_gets_the_run(store):
    num_inside, most = 0, 0
    lock, inside = threading.Lock(), threading.Barrier(8)

    def drive(number: int) -> bool:
        nonlocal num_inside, most
        inside.wait()
        try:
            with held(store, "r", announce=ignore):
                with lock:
                    num_inside += 1
                    most = max(most, num_inside)
                # Whoever comes while this one holds it is refused.
                inside.wait()
                with lock:
                    num_inside -= 1
        except RunTaken:
            inside.wait()
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(drive, range(8)))
    assert won.count(True) == 1
    assert most == 1


def test_a_killed_driver_on_this_machine_is_followed_at_once(store):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store.uri], stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"held\n"
        with (
            pytest.raises(RunTaken, match=f"process {driver.pid}"),
            held(store, "r", announce=ignore),
        ):
            pass
        driver.kill()
        driver.wait()
        said: list[str] = []
        with held(store, "r", announce=said.append):
            pass
        assert "took over" in said[-1]


def test_one_on_another_machine_is_followed_when_its_lease_has_expired(store, monkeypatch):
    own = leases._own
    monkeypatch.setattr(
        leases, "_own", lambda *, duration_s: replace(own(duration_s=duration_s), machine="other")
    )
    chain = leases._Chain(store=store, run="r")
    assert chain.append(leases._own(duration_s=60))
    monkeypatch.undo()
    with pytest.raises(RunTaken), held(store, "r", announce=ignore):
        pass
    assert chain.append(replace(leases._own(duration_s=-1), machine="other"))
    said: list[str] = []
    with held(store, "r", announce=said.append, watch_s=0.5):
        pass
    assert "has expired" in said[0]


def test_a_holder_that_still_renews_keeps_the_run_whatever_the_clocks_say(store):
    # Its leases have expired by this machine's clock, but new ones keep coming.
    chain = leases._Chain(store=store, run="r")
    expired = replace(leases._own(duration_s=-5), machine="other")
    assert chain.append(expired)
    keeper = leases._Keeper(chain, expired, duration_s=60, renew_s=0.2)
    keeper.start()
    try:
        with pytest.raises(RunTaken), held(store, "r", announce=ignore, watch_s=5):
            pass
    finally:
        keeper.ended.set()
        keeper.join()
    assert keeper.taken_by is None


def test_a_driver_that_was_unlocked_stops(store):
    def drive() -> None:
        with held(store, "r", announce=ignore, renew_s=0.2):
            assert "is free now" in unlock(store, "r")
            for _ in range(300):
                # Short ones: Python looks for what another thread asks of it between its steps.
                threading.Event().wait(0.1)

    with pytest.raises(RunTaken, match="unlocked"):
        drive()
    assert unlock(store, "r") == "nobody holds r"


def test_entries_of_old_numbers_go(store):
    chain = leases._Chain(store=store, run="r")
    for _ in range(leases.NUM_KEPT + 4):
        assert chain.append(leases._own(duration_s=60))
    assert len(store.list("leases/r/")) == leases.NUM_KEPT
    late = leases._Chain(store=store, run="r", number=1)
    assert late.append(leases._own(duration_s=60)) is False

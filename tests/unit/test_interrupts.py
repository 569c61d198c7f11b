"""Ctrl-C that lands where Python drops exceptions still ends the program."""

import os
import signal
import subprocess
import sys
import time

import psutil

LOST = """
import signal, sys, time, weakref

signal.signal(signal.SIGINT, signal.default_int_handler)
{prepare}

class Thing:
    pass

def ended(_):
    signal.raise_signal(signal.SIGINT)
    len("one more step, before which the handler runs")

thing = Thing()
reference = weakref.ref(thing, ended)
try:
    del thing
    time.sleep({wait_s})
except KeyboardInterrupt:
    sys.exit(130)
"""
REPEATED = "from lorid.interrupts import repeat_lost_interrupts; repeat_lost_interrupts()"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_an_interrupt_inside_a_weak_references_callback_is_lost_by_python_alone():
    ended = run(LOST.format(prepare="", wait_s=0.5))
    assert ended.returncode == 0
    assert "Exception ignored in" in ended.stderr


def test_it_comes_again():
    ended = run(LOST.format(prepare=REPEATED, wait_s=50))
    assert ended.returncode == 130
    assert ended.stderr == ""


def test_what_else_nobody_could_raise_is_shown_as_before():
    thing = "class Thing:\n    def __del__(self):\n        raise ValueError('lost')\n"
    ended = run(f"{REPEATED}\n{thing}\nThing()\n")
    assert ended.returncode == 0
    assert "ValueError: lost" in ended.stderr


LEFT = """
import subprocess, sys
from lorid.interrupts import leave

for title in ("ray::FakeAgent", "something else"):
    command = [title, "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(command, executable=sys.executable, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
leave(130)
"""


def is_running(pid: int) -> bool:
    """Not so of a process that is over and that nobody has asked for yet."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_agents_of_a_local_cluster_do_not_outlive_the_program():
    ended = subprocess.run(
        [sys.executable, "-c", LEFT], stdout=subprocess.PIPE, text=True, timeout=60
    )
    agent, other = map(int, ended.stdout.split())
    try:
        assert ended.returncode == 130
        deadline = time.monotonic() + 10
        while is_running(agent) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(agent)
        assert is_running(other)
    finally:
        os.kill(other, signal.SIGKILL)

"""Ctrl-C and a polite kill, which must reach the main thread whatever Python runs when they come.

    interrupt_on_sigterm()
    repeat_lost_interrupts()
    ...
    leave(INTERRUPTED)

A signal's handler runs between any two steps of the main thread, also inside a destructor or a weak
reference's callback. What is raised there goes nowhere: Python prints "Exception ignored in" and
goes on, and so would a job that was told to stop.
"""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import psutil

# The exit code of what was interrupted, as shells have it.
INTERRUPTED = 130
# Long enough for the callback to end, short enough for nobody to press Ctrl-C again.
AGAIN_AFTER_S = 0.05


def interrupt_on_sigterm() -> None:
    """Make a polite kill what Ctrl-C is, so that Ray's processes end with this one."""
    signal.signal(signal.SIGTERM, _interrupt)


def repeat_lost_interrupts() -> None:
    """Interrupt the main thread again when Python had to drop a KeyboardInterrupt.

    Everything else that nobody could raise is shown as before.
    """
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = threading.Timer(AGAIN_AFTER_S, interrupt_main_thread)
            again.daemon = True
            again.start()
        else:
            show(unraisable)

    sys.unraisablehook = hook


def interrupt_main_thread() -> None:
    """What Ctrl-C does; also ends a system call that the thread waits in."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def leave(code: int) -> NoReturn:
    """End this process at once, whatever its threads wait for, and let nothing of it stay behind.

    The processes of a local Ray cluster end with the one that started it. But its agents first try
    for a minute to tell the cluster of its end, so they are ended here.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, IndexError):
            title = process.cmdline()[0]
            if title.startswith("ray::") and title.endswith("Agent"):
                process.kill()
    os._exit(code)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

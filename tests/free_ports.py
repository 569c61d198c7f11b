"""Ports for servers that a test starts.

They are outside the ranges from which the system (from 32768), Ray's workers (to 19999), Serve's
ingress (30000 to 31000) and Ceph's daemons (6800 to 7568) are given theirs, so that nothing that
starts in between takes them.
"""

import random
import socket
from contextlib import ExitStack, suppress


def free_port() -> int:
    """A port that nothing listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(number: int) -> list[int]:
    """So many of them, no two the same."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < number:
            port = random.SystemRandom().randint(20_000, 29_999)
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return ports

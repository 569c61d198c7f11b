"""What a connection to Ray refuses before Ray itself is asked."""

import socket
import sys

import psutil
import pytest

from lorid.distributed.cluster import connected
from lorid.errors import ResourceError


def test_a_cluster_that_is_gone_is_named_at_once(monkeypatch):
    # Bound, so that nobody else takes it, but not listening.
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ResourceError, match=f"RAY_ADDRESS={address}"), connected():
            pass


def test_a_python_whose_path_holds_a_space_is_refused(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(sys, "executable", "/home/my folder/.venv/bin/python")
    with pytest.raises(ResourceError, match=r"my folder.*holds a space"), connected():
        pass


def test_too_little_memory_is_refused_with_both_figures(monkeypatch):
    class Little:
        available = 2 * 1024**3

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", Little)
    named = r"2\.0 GiB of memory are free, a local run needs 5"
    with pytest.raises(ResourceError, match=named), connected():
        pass

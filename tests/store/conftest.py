"""Fixtures of the store's tests: stores of both kinds, the proxy, files."""

import os
import random
from pathlib import Path

import pytest
from fault_proxy import FaultProxy

from lorid.artifacts import connection
from lorid.artifacts.store import open_store


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/some/prefix")


@pytest.fixture
def proxy(s3_bucket, monkeypatch):
    """A proxy in front of the server that does nothing yet; clients opened later go through it."""
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(connection, "READ_TIMEOUT_S", 1)
        yield proxy


@pytest.fixture
def make_folder(tmp_path):
    """Folders with files of given sizes and random content."""

    def make(name: str, sizes: dict[str, int], *, seed: int = 0) -> Path:
        source = random.Random(f"{name} {seed}")
        folder = tmp_path / name
        for path, size in sizes.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(source.randbytes(size))
        return folder

    return make

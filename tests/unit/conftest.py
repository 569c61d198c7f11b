"""Unit tests are pure: none of them may start Ray."""

import sys

import pytest


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A test here that starts Ray fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a unit test started Ray")

    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", refuse)

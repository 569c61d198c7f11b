"""Who is asked to save when a training is stopped, and how long that may take."""

import pytest

from lorid.distributed.progress import StepBoard
from lorid.distributed.saving import INTERACTIVE_GRACE_S, grace_s


def at(step: int) -> dict[str, float | int | str]:
    return {"step": step, "num_steps": 12}


def test_roles_that_have_something_to_lose_are_asked_until_they_have_saved():
    board = StepBoard()
    board.give_up("knowledge_generator", "it explodes")
    for role, step in (("deep_reasoner", 5), ("knowledge_generator", 3), ("done", 12)):
        assert board.post(role, at(step)) is False
    assert board.ask_to_save() == ["deep_reasoner"]
    assert board.post("deep_reasoner", at(6)) is True
    # One that takes its first step only now has lost nothing.
    assert board.post("intuitive_reasoner", at(1)) is False
    board.note_saved(["deep_reasoner"])
    assert board.post("deep_reasoner", at(7)) is False
    assert board.read_unsaved() == []


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, INTERACTIVE_GRACE_S),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, 2.5),
        ({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_JOB_STOP_WAIT_TIME_S": "120"}, 119.5),
        ({"RAY_JOB_STOP_WAIT_TIME_S": "soon"}, INTERACTIVE_GRACE_S),
        ({"RAY_JOB_STOP_WAIT_TIME_S": "0"}, 0),
    ],
)
def test_saving_takes_no_longer_than_who_stops_it_waits(environment, seconds, monkeypatch):
    for name in ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_STOP_WAIT_TIME_S"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert grace_s() == seconds

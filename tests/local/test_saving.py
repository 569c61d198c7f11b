"""A training is stopped: who is asked to save, how long that may take, and what is said of it."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest

from lorid.distributed import saving
from lorid.distributed.preemption import Notices, SpotWatcher
from lorid.distributed.progress import StepBoard, StepPoster
from lorid.distributed.saving import INTERACTIVE_GRACE_S, SaveNotes, grace_s
from lorid.method.roles import Role
from lorid.training.ranks import Ranks

IR, KG, DR = Role


class Handle:
    """The board as Ray hands it out; a call's answer is there at once."""

    def __init__(self, board: StepBoard) -> None:
        self.board = board

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(self.board, name))


def reported(board: StepBoard, steps: Mapping[Role, int]) -> None:
    """Ray Train has a checkpoint of these steps, which two ranks have reported."""
    summary = {str(role): {"step": step, "loss": 0.5} for role, step in steps.items()}
    SaveNotes(Handle(board)).after_report(None, [summary, summary], SimpleNamespace())


@pytest.fixture
def board() -> StepBoard:
    """All three have begun: one is at step 5, one is done and saved, one has no step yet."""
    board = StepBoard()
    board.post([{"role": IR, "step": step} for step in range(1, 6)])
    board.post([{"role": KG, "step": step} for step in range(1, 4)])
    reported(board, {KG: 3})
    return board


@pytest.fixture
def interrupt(board, monkeypatch) -> Callable[..., list[str]]:
    """Interrupt a driver; `meanwhile` happens as often as it looks. Returns what it said."""
    monkeypatch.setattr(saving, "ray", SimpleNamespace(get=lambda reply, timeout: reply))
    monkeypatch.setattr(saving, "SECONDS_BETWEEN_LOOKS", 0.001)

    def call(meanwhile: Callable[[], object] = lambda: None, *, running=Role) -> list[str]:
        said: list[str] = []

        def look() -> list[Role]:
            meanwhile()
            return list(running)

        with (
            pytest.raises(KeyboardInterrupt),
            saving.saving_when_interrupted(Handle(board), running=look, say=said.append),
        ):
            raise KeyboardInterrupt
        return said

    return call


def test_the_driver_waits_until_what_would_be_lost_is_saved(board, interrupt):
    said = interrupt(lambda: reported(board, {IR: 6}))
    assert said == [f"{IR}: saved at step 6"]
    assert board.read_unsaved() == {}


def test_a_checkpoint_that_was_under_way_is_not_enough(board, interrupt, monkeypatch):
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "0.6")
    said = interrupt(lambda: reported(board, {IR: 4}))
    assert said == [f"{IR}: not saved at step 5, goes on from step 4"]


def test_one_that_cannot_save_any_more_is_not_waited_for(board, interrupt):
    assert interrupt(running=[KG]) == [
        f"{IR}: not saved at step 5, goes on from its last checkpoint"
    ]
    assert interrupt(lambda: board.give_up(str(IR), "not finite")) == [
        f"{IR}: not saved at step 5, goes on from its last checkpoint"
    ]


def test_a_second_interrupt_does_not_wait(interrupt):
    def again() -> None:
        raise KeyboardInterrupt

    assert interrupt(again) == []


def test_every_wish_reaches_all_ranks_once():
    board = StepBoard()
    poster = StepPoster(Handle(board), {}, take=lambda reply, _: reply)
    spot = SpotWatcher()
    spot.stop()
    notices = Notices(Ranks(), ask_ray=lambda: None, take_wish=poster.take_wish, spot=spot)
    seen = []
    for is_asked in (False, True, False, True, False):
        if is_asked:
            board.ask_to_save()
        poster.post(at_once=True)
        seen.append(notices.seen())
        assert not notices.seen()
    assert seen == [False, True, False, True, False]


def test_a_reply_that_is_late_is_read_later():
    board, replies = StepBoard(), [None, None, 1]
    poster = StepPoster(Handle(board), {}, take=lambda reply, _: replies.pop(0))
    poster.post(at_once=True)
    assert [poster.take_wish() for _ in range(3)] == [False, False, True]


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

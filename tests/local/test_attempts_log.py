"""The log of an evaluation: what a writer that was thought dead adds late is kept."""

import pytest

from lorid.artifacts import attempts_log
from lorid.artifacts.attempts_log import AttemptsLog
from lorid.artifacts.local import LocalStore

FOLDER = "attempts/run/0/mutual/"


def row(number: int) -> dict:
    return {"question": f"q{number}", "intuitive": [], "knowledge": [], "deep": []}


@pytest.mark.parametrize("merges_above", [3, 200])
def test_a_shard_that_comes_while_the_others_are_read_stays(tmp_path, monkeypatch, merges_above):
    monkeypatch.setattr("lorid.artifacts.shards.MERGE_ABOVE", merges_above)
    store = LocalStore(tmp_path)

    def add(number: int) -> None:
        with AttemptsLog.for_writing(store, FOLDER) as log:
            log.add(row(number))

    for number in range(5):
        add(number)
    read = attempts_log.read_lines

    def read_slowly(*arguments):
        yield from read(*arguments)
        add(5)

    with monkeypatch.context() as patch:
        patch.setattr(attempts_log, "read_lines", read_slowly)
        with AttemptsLog.opened(store, FOLDER) as log:
            assert len(log) == 5
    assert len(store.list(FOLDER)) == (2 if merges_above == 3 else 6)
    with AttemptsLog.opened(store, FOLDER) as log:
        assert [log.find(f"q{number}") for number in range(6)] == [row(n) for n in range(6)]

"""Racing promoters on a real server: one winner a number, and nobody's entry is lost."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lorid.artifacts.aliases import current_entry, history, promote, rollback
from lorid.artifacts.store import open_store
from lorid.errors import ArtifactDrifted

NUM_RACERS = 16


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/some/prefix")


def race(act):
    """What each of the racers got: an entry, or why it was refused."""

    def attempt(racer):
        try:
            return act(racer)
        except ArtifactDrifted as error:
            return str(error)

    with ThreadPoolExecutor(NUM_RACERS) as pool:
        return list(pool.map(attempt, range(NUM_RACERS)))


def test_of_racing_promoters_none_is_lost_and_each_number_has_one(store):
    entries = race(lambda racer: promote(store, "production", f"triple/demo/{racer:012d}"))
    told = history(store, "production")
    assert sorted(entries, key=lambda entry: entry.number) == told
    assert [entry.number for entry in told] == list(range(1, NUM_RACERS + 1))
    assert len({entry.target for entry in told}) == NUM_RACERS
    assert [entry.previous for entry in told[1:]] == [entry.target for entry in told[:-1]]
    assert current_entry(store, "production") == told[-1]


def test_of_racers_that_expect_the_same_one_wins_and_the_others_learn_who(store):
    for number in range(1, 4):
        now = current_entry(store, "production")
        expect = now.target if now else "none"
        results = race(
            lambda racer, expect=expect, number=number: promote(
                store, "production", f"triple/demo/{number:04d}{racer:08d}", expect=expect
            )
        )
        (winner,) = [result for result in results if not isinstance(result, str)]
        assert winner.number == number
        assert current_entry(store, "production") == winner
        assert all(winner.target in lost for lost in results if isinstance(lost, str))


def test_of_racing_rollbacks_none_goes_back_two_by_accident(store):
    """Those that saw the same state: one wins. What stands is what the winners made of it."""
    for number in range(20):
        promote(store, "production", f"triple/demo/{number:012d}")
    results = race(lambda _: rollback(store, "production"))
    won = [result for result in results if not isinstance(result, str)]
    told = history(store, "production")
    assert sorted(won, key=lambda entry: entry.number) == told[20:]
    assert [entry.target for entry in told[20:]] == [
        f"triple/demo/{18 - step:012d}" for step in range(len(won))
    ]

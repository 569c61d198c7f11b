"""The worker processes behind the checker: replaced when they die, shared, and never left."""

import multiprocessing
import threading
from pathlib import Path

import psutil
import pytest

from lorid.errors import CheckerError
from lorid.method.equivalence import AnswerChecker
from lorid.method.symbolic import WORKER


@pytest.fixture
def checker():
    with AnswerChecker() as one:
        yield one


@pytest.fixture
def workers():
    """The worker processes that this test started; other checkers of the run have theirs."""

    def running() -> dict[int, psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return {child.pid: child for child in children if str(WORKER) in child.cmdline()}

    before = running()
    return lambda: [child for pid, child in running().items() if pid not in before]


def test_a_formula_that_computes_for_ever_ends_as_timed_out_and_the_next_is_judged():
    with AnswerChecker(cpu_limit_s=1) as checker:
        verdict = checker.verdict(r"\binom{99999999}{49999999}", r"\sqrt{2}")
        assert (verdict.equal, verdict.reason) == (False, "timed out")
        assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")


def test_many_threads_share_one_checker():
    failures: list[str] = []
    with AnswerChecker() as checker:

        def ask(number: int) -> None:
            if not checker.equal(rf"\sqrt{{{4 * number}}}", rf"2\sqrt{{{number}}}"):
                failures.append(f"{number} is equal")
            if checker.equal(rf"\sqrt{{{4 * number}}}", rf"3\sqrt{{{number}}}"):
                failures.append(f"{number} is different")

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2, 14)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_equal_many_keeps_the_order(checker):
    pairs = [("1", "1"), ("1", "2"), (r"\sqrt{8}", r"2\sqrt{2}"), ("a", "b")]
    assert checker.equal_many(pairs) == [True, False, True, False]
    with AnswerChecker(num_workers=2) as two:
        assert two.equal_many(pairs * 3) == [True, False, True, False] * 3


def test_a_closed_checker_leaves_no_process_and_starts_again_when_asked():
    checker = AnswerChecker()
    assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
    checker.close()
    assert checker.equal(r"\sqrt{12}", r"2\sqrt{3}")
    checker.close()


def test_closing_ends_the_processes(workers):
    with AnswerChecker(num_workers=2) as checker:
        assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
        assert len(workers()) == 1
    assert workers() == []


def test_a_worker_that_was_killed_costs_one_pair_at_most(checker, workers):
    assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
    for worker in workers():
        worker.kill()
        worker.wait()
    assert checker.equal(r"\sqrt{12}", r"2\sqrt{3}")


def test_a_worker_that_cannot_start_is_one_line_with_the_fix(checker, monkeypatch, tmp_path):
    (tmp_path / "broken.py").write_text("raise ImportError('no computer algebra here')")
    monkeypatch.setattr("lorid.method.symbolic.WORKER", tmp_path / "broken.py")
    with pytest.raises(CheckerError, match=r"does not start; see why with: .*import math_verify"):
        checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
    monkeypatch.undo()
    assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")


def test_memory_is_bounded(checker):
    # Expands to more terms than a gibibyte holds, or runs out of time first: both end the worker.
    verdict = checker.verdict(r"(x+y+z+w)^{9999}", r"(x+y+z+v)^{9999}")
    assert not verdict.equal
    assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")


def test_secrets_of_the_environment_stay_here(checker, workers, monkeypatch):
    monkeypatch.setenv("LORID_API_KEY", "a-secret")
    assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
    (worker,) = workers()
    assert b"a-secret" not in Path(f"/proc/{worker.pid}/environ").read_bytes()


def _equal_in_child(checker: AnswerChecker, results: "multiprocessing.SimpleQueue[bool]") -> None:
    results.put(checker.equal(r"\sqrt{20}", r"2\sqrt{5}"))


def test_a_checker_works_in_a_process_that_it_was_sent_to(checker):
    assert checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=_equal_in_child, args=(checker, results))
    process.start()
    assert results.get() is True
    process.join()

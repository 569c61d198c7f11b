"""Evaluation: every text is logged as it comes, kills lose nothing, figures are a replay."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from evaluation_driver import problems_of, run
from scripting import texts
from triple_files import publish_triple, write_base

from lorid.artifacts.records import fetch, load_record
from lorid.artifacts.shards import UploadedKeys
from lorid.artifacts.store import open_store
from lorid.distributed import inputs, triple_evaluation
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import EngineError, PromptTooLong, ServeError
from lorid.jsonl import read_jsonl
from lorid.method import marking
from lorid.method.attempts import parse_attempts_line
from lorid.method.equivalence import AnswerChecker
from lorid.method.grader import GRADER_VERSION
from lorid.method.replay import replay
from lorid.method.roles import Role
from lorid.method.stopping import Policy
from lorid.presets import demo

NUM_PROBLEMS = int(os.environ.get("LORID_EVALUATION_PROBLEMS", "40"))
NUM_KILLS = int(os.environ.get("LORID_EVALUATION_KILLS", "1"))
STORE = os.environ.get("LORID_EVALUATION_STORE", "folder")


class Asked:
    """A scripted engine whose texts depend on the seed alone, as a real one's do; it counts.

    After `most` texts it writes no more, until `most` is raised.
    """

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.broken: dict[str, Exception] = {}
        self.most = float("inf")
        self.shift = 0
        self.engine = ScriptedEngine({role: self.write for role in [*Role, None]})

    async def write(self, request) -> str:
        self.counts[request.question, str(request.role)] += 1
        while self.counts.total() > self.most:
            await asyncio.sleep(0.01)
        if request.question in self.broken:
            raise self.broken[request.question]
        return texts(str((request.seed + self.shift) % 3))[0]

    def num_questions(self) -> Counter[str]:
        """How often each question was begun."""
        first = str(Role.INTUITIVE_REASONER)
        return Counter({q: n for (q, role), n in self.counts.items() if role == first})


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def stage(request, asked, served, tmp_path):
    """Runs the stage in a store of its own, here or in a process; the same endpoint answers.

    `LORID_EVALUATION_STORE=s3` puts the stores into a bucket.
    """
    place = tmp_path
    if STORE == "s3":
        place = f"s3://{request.getfixturevalue('s3_bucket')}"
    url = served(asked.engine, max_rounds=4)
    base = write_base(tmp_path / "base")

    class Stage:
        def __init__(self, name: str) -> None:
            store = open_store(f"{place}/{name}")
            triple = publish_triple(store, tmp_path / f"{name}-made", base=base)
            self.store = store
            self.arguments = {
                "store": store.uri, "url": url, "triple": triple.address,
                "num_problems": NUM_PROBLEMS,
            }  # fmt: skip

        def run(self, **changes):
            return run(**{**self.arguments, **changes})

        def other_triple(self) -> str:
            folder = tmp_path / "other-made"
            return publish_triple(self.store, folder, base=base, seed=1).address

        def start(self) -> subprocess.Popen:
            driver = Path(__file__).with_name("evaluation_driver.py")
            command = [sys.executable, str(driver), json.dumps(self.arguments)]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL)

        def files(self, record) -> dict[str, list[dict]]:
            folder = fetch(self.store, record, into=tmp_path / record.version)
            return {
                path.stem: [row for _, row in read_jsonl(path)]
                for path in sorted(folder.glob("*.jsonl"))
            }

        def logged(self) -> set[str]:
            """The questions in the shards of the store."""
            keys = [key for key in self.store.list("attempts/") if "/mutual/" in key]
            lines = [line for key in keys for line in self.store.read(key).split(b"\n") if line]
            return {json.loads(line)["question"] for line in lines if line.endswith(b"}")}

    return Stage


def test_kills_lose_nothing_that_was_logged_and_end_in_the_same_attempts(stage, asked):
    undisturbed = stage("undisturbed")
    expected = undisturbed.files(undisturbed.run())
    asked.counts.clear()

    killed, chance = stage("killed"), random.Random(7)
    for _ in range(NUM_KILLS):
        before = killed.logged()
        # Eight questions at once, of twelve texts at most: some are done by then, and not all.
        asked.most = asked.counts.total() + chance.randint(100, 110)
        driver = killed.start()
        while not killed.logged() > before:
            assert driver.poll() is None
            time.sleep(0.01)
        driver.kill()
        driver.wait()
    asked.most = float("inf")
    safe = killed.logged()
    assert 0 < len(safe) < NUM_PROBLEMS
    asked.counts.clear()
    record = killed.run()
    assert not asked.num_questions().keys() & safe
    assert killed.files(record) == expected
    assert record.details["num_reused"] == len(safe)
    assert len(expected["base"]) == NUM_PROBLEMS


def test_figures_are_the_replay_of_what_was_logged(stage):
    one = stage("store")
    record = one.run()
    attempts = [parse_attempts_line(row) for row in one.files(record)["attempts"]]
    with AnswerChecker() as checker:
        scores = replay(attempts, policy=Policy(max_rounds=4), checker=checker)
    details = record.details
    assert details["num_correct"] == sum(score.correct is True for score in scores)
    assert 0 < details["num_correct"] < NUM_PROBLEMS
    assert details["mean_rounds"] == sum(score.num_rounds for score in scores) / NUM_PROBLEMS
    assert details["num_short"] == details["num_errors"] == 0
    assert details["against the base"]["num_problems"] == NUM_PROBLEMS


def test_another_rule_is_judged_without_asking_and_says_what_it_lacks(stage, asked):
    one = stage("store")
    one.run()
    asked.counts.clear()
    paper = one.run(rule="same-round")
    assert asked.counts.total() == 0
    assert paper.details["num_reused"] == NUM_PROBLEMS
    assert 0 < paper.details["num_short"] < NUM_PROBLEMS
    drawn = one.run(rule="majority", redraw=True)
    assert drawn.details["num_short"] == 0
    assert {len(row["deep"]) for row in one.files(drawn)["attempts"]} == {4}
    # All rounds are there now, so every rule is exact, and the first one what it was.
    asked.counts.clear()
    exact = one.run(rule="bayes")
    assert (asked.counts.total(), exact.details["num_short"]) == (0, 0)


def test_another_grader_marks_what_is_logged_without_asking(stage, asked, monkeypatch, tmp_path):
    """By `lorid evaluate`'s own path, which would start Ray and vLLM for what is missing."""
    one = stage("store")
    one.run()
    asked.counts.clear()
    questions = tmp_path / "questions.jsonl"
    rows = [
        {"question": p.question, "answer": f"#### {p.answer}"} for p in problems_of(NUM_PROBLEMS)
    ]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluated():
        return triple_evaluation.evaluate_triple(
            one.store, one.arguments["triple"], overrides=["feedback.max_rounds=4"],
            settings=[f"questions={questions}"], announce=print,
        )  # fmt: skip

    first = evaluated()
    assert evaluated() == first
    strict = AnswerChecker.equal
    monkeypatch.setattr(
        AnswerChecker, "equal", lambda self, a, b: {a, b} == {"0", "1"} or strict(self, a, b)
    )
    for module in (triple_evaluation, marking):
        monkeypatch.setattr(module, "GRADER_VERSION", GRADER_VERSION + 1)
    second = evaluated()
    assert asked.counts.total() == 0
    for record, version in ((first, GRADER_VERSION), (second, GRADER_VERSION + 1)):
        assert record.details["grader_version"] == version
        assert record.details["num_reused"] == len(rows)
    attempts = [parse_attempts_line(row) for row in one.files(first)["attempts"]]
    assert one.files(second)["attempts"] == one.files(first)["attempts"]
    with AnswerChecker() as checker:
        scores = replay(attempts, policy=Policy(max_rounds=4), checker=checker)
    num_correct = sum(score.correct is True for score in scores)
    assert second.details["num_correct"] == num_correct > first.details["num_correct"]


def test_another_grader_binds_and_evaluates_anew_and_trains_nothing(monkeypatch):
    config = demo()
    before = [inputs.adapter_inputs(config, role) for role in Role]
    bound, evaluated = inputs.triple_inputs(config), inputs.evaluation_inputs(config)
    monkeypatch.setattr(inputs, "GRADER_VERSION", GRADER_VERSION + 1)
    assert [inputs.adapter_inputs(config, role) for role in Role] == before
    assert inputs.triple_inputs(config) == bound | {"grader": GRADER_VERSION + 1}
    assert inputs.evaluation_inputs(config) == evaluated | {"grader": GRADER_VERSION + 1}


def test_what_failed_is_asked_again_and_what_cannot_be_answered_is_recorded(
    stage, asked, monkeypatch
):
    monkeypatch.setattr("lorid.batches.MAX_TRIES", 2)
    one = stage("store")
    asked.broken["What is 3?"] = EngineError("once")
    asked.broken["What is 5?"] = PromptTooLong("the prompt has 5000 tokens")
    with pytest.raises(ServeError, match=r"1 of 40 problems got no answer.*run again"):
        one.run(num_problems=40)
    assert len(one.logged()) == 38
    accepted = one.run(num_problems=39, accept_errors=True)
    assert (accepted.details["num_errors"], accepted.details["num_problems"]) == (2, 39)
    del asked.broken["What is 3?"]
    asked.counts.clear()
    record = one.run(num_problems=40)
    assert set(asked.num_questions()) == {"What is 3?", "What is 5?"}
    assert record.details["num_errors"] == 1
    assert record.details["num_problems"] == 40
    files = one.files(record)
    assert [row["problem_id"] for row in files["errors"]] == ["p5"]
    assert [row["problem_id"] for row in files["attempts"]] == [
        p.problem_id for p in problems_of(40)
    ]
    assert files["attempts"][5]["intuitive"] == []


def test_where_nothing_can_be_appended_rows_gather_in_new_shards(stage, monkeypatch):
    from lorid.artifacts import attempts_log, shards

    monkeypatch.setattr(
        attempts_log, "open_shard", lambda store, folder: UploadedKeys(store, f"{folder}x.jsonl")
    )
    monkeypatch.setattr(attempts_log, "FLUSH_ROWS", 4)
    monkeypatch.setattr(shards, "MERGE_ABOVE", 3)
    one = stage("store")
    record = one.run()
    assert len(one.logged()) == NUM_PROBLEMS
    keys = [key for key in one.store.list("attempts/") if "/mutual/" in key]
    assert len(keys) >= NUM_PROBLEMS // 4
    monkeypatch.setattr(attempts_log, "open_shard", shards.open_shard)
    again = one.run(num_problems=NUM_PROBLEMS - 1)
    assert again.details["num_reused"] == NUM_PROBLEMS - 1
    merged = [key for key in one.store.list("attempts/") if "/mutual/" in key]
    assert len(merged) == 1
    assert one.files(again)["attempts"] == one.files(record)["attempts"][:-1]


def test_two_triples_are_compared_on_the_questions_of_both(stage, asked):
    one = stage("store")
    first = one.run()
    asked.shift = 1
    second = one.run(
        triple=one.other_triple(), compare=[first.address], num_problems=NUM_PROBLEMS - 2
    )
    assert second.details["num_reused"] == 0
    paired = second.details[f"against {first.address}"]
    assert paired["num_problems"] == NUM_PROBLEMS - 2
    both, only = paired["num_both"], paired["num_only_a"]
    assert both + only == second.details["num_correct"]
    assert both + paired["num_only_b"] <= first.details["num_correct"]
    assert paired["low"] <= paired["difference"] <= paired["high"]
    (row,) = one.files(second)["compared"]
    assert (row["against"], row["p_value"]) == (first.address, paired["p_value"])


class SeededFactory:
    """Makes, in a worker of Ray, an engine whose texts depend on the seed alone, as `Asked`'s."""

    def __call__(self, config) -> ScriptedEngine:
        return ScriptedEngine({role: self.write for role in [*Role, None]})

    def write(self, request) -> str:
        return f"So it is.\n--> {request.seed % 3} END"


class MortalFactory(SeededFactory):
    """Of all engines the first that has written so many texts dies with its process."""

    def __init__(self, died: Path, *, after: int) -> None:
        self.died, self.num_left = died, after

    def write(self, request) -> str:
        self.num_left -= 1
        if self.num_left <= 0 and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(request)


@contextmanager
def travelling() -> Iterator[None]:
    """What workers need of the tests' modules goes with it; afterwards no more, for other tests."""
    from ray import cloudpickle

    modules = [sys.modules[__name__], sys.modules["scripting"]]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_engines_of_ray_data_write_what_the_endpoint_writes(stage, tmp_path):
    from scripting import NoStore

    from lorid.distributed.cluster import connected
    from lorid.distributed.evaluation import log_folder
    from lorid.distributed.offline import ByRayData

    online, offline, killed = stage("online"), stage("offline"), stage("killed-worker")
    expected = online.files(online.run())
    died = tmp_path / "died"

    def asker_of(one, factory):
        triple = load_record(one.store, one.arguments["triple"])
        return lambda config, settings, _: ByRayData(
            config, settings, source=NoStore(), factory=factory,
            folder=log_folder(config, store=one.store, triple=triple),
        )  # fmt: skip

    with travelling(), connected():
        record = offline.run(asker_of=asker_of(offline, SeededFactory()))
        after_loss = killed.run(asker_of=asker_of(killed, MortalFactory(died, after=70)))
    assert offline.files(record) == expected
    # A worker that is killed is started again, and what it had under way is asked again.
    assert died.exists()
    assert killed.files(after_loss) == expected
    assert len(offline.logged()) == NUM_PROBLEMS
    # What the workers have logged, another run finds.
    again = offline.run(asker_of=None, num_problems=NUM_PROBLEMS - 1)
    assert again.details["num_reused"] == NUM_PROBLEMS - 1

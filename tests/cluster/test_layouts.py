"""The layouts on real Serve: where a question's rounds go, how many engines run, what they say.

The engines of most tests are scripted and tell their process. By hand, with vLLM in their place:

    LORID_LAYOUTS=1 pytest tests/cluster/test_layouts.py -s -k vllm
    LORID_LAYOUTS=1 pytest tests/cluster/test_layouts.py -s -k sleep
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pacing
import psutil
import pytest
from free_ports import free_port
from ray import cloudpickle, serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from small import processes_of, random_triple

from lorid.api import SolveRequest
from lorid.artifacts.store import open_store
from lorid.config import EndpointConfig, change_endpoint
from lorid.distributed.cluster import connected
from lorid.distributed.deployments import app_of_run, student_app
from lorid.method.roles import Role
from lorid.presets import demo

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
IS_FULL = os.environ.get("LORID_LAYOUTS") == "1"
NUM_QUESTIONS = 16
ROUNDS = 3
# The replicas' processes do not know the folder of the tests.
cloudpickle.register_pickle_by_value(pacing)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Serve's handles report every 10 s otherwise.
        patch.setenv("RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
        with connected():
            serve.start(http_options=HTTPOptions(host="127.0.0.1", port=free_port()))
            try:
                yield
            finally:
                serve.shutdown()


def config_of(**serving: object) -> EndpointConfig:
    """The demo's, so that many engines fit on few cores, with these settings."""
    changes = {
        "engine.num_cpus": 0.05,
    } | {f"serving.{name}": value for name, value in serving.items()}
    lines = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    return change_endpoint(demo(), lines, source="test")


def running(
    config: EndpointConfig,
    *,
    text_s: float = 0.02,
    engine: type[pacing.Paced] = pacing.Telling,
    log_level: str = "INFO",
) -> Any:
    app = student_app(config, source=pacing.OneTriple(), factory=engine(text_s))
    return serve.run(
        app,
        name="lorid",
        route_prefix=None,
        logging_config=LoggingConfig(log_level=log_level),
    )


async def writers_of(handle: Any, questions: list[str]) -> list[Mapping[Role, set[int]]]:
    """Which processes wrote each question's texts, by role."""
    answers = await asyncio.gather(
        *(handle.solve.remote(SolveRequest(question=one, max_rounds=ROUNDS)) for one in questions)
    )
    found = []
    for answer in answers:
        written: dict[Role, set[int]] = {role: set() for role in Role}
        for ask, sampled in answer.answer.used:
            written[ask.role].add(int(sampled.text.split()[0]))
        assert len(answer.answer.rounds) == ROUNDS
        found.append(written)
    return found


QUESTIONS = [f"Tom has {n} apples and finds 4 more. How many?" for n in range(NUM_QUESTIONS)]


@pytest.mark.parametrize("layout", ["shared", "split"])
def test_the_rounds_of_a_question_stay_on_one_replica_and_questions_spread(layout):
    handle = running(config_of(layout=layout, num_replicas=2))
    first = asyncio.run(writers_of(handle, QUESTIONS))
    assert all(len(processes) == 1 for written in first for processes in written.values())
    everywhere = {role: set().union(*(one[role] for one in first)) for role in Role}
    assert all(len(processes) == 2 for processes in everywhere.values())
    processes = set().union(*everywhere.values())
    if layout == "shared":
        assert len(processes) == 2
    else:
        assert len(processes) == 2 * len(Role)
        # The same question again finds the prefix that it left.
        assert asyncio.run(writers_of(handle, QUESTIONS)) == first


@pytest.mark.skipif(not IS_FULL, reason="two layouts with one driver and with two: LORID_LAYOUTS=1")
@pytest.mark.parametrize("layout", ["split", "merged"])
def test_two_drivers_share_the_questions_and_answer_as_one_does(layout):
    texts = {}
    for num_drivers in (1, 2):
        config = config_of(layout=layout, num_drivers=num_drivers)
        # Their texts tell the question, the role's seed and so the round; their logs, each call.
        handle = running(config, engine=pacing.Paced, log_level="DEBUG")
        texts[num_drivers] = asyncio.run(
            texts_of(handle, QUESTIONS, rule="majority", max_rounds=ROUNDS)
        )
        shares = shares_of(processes_of("StudentEngine"))
        print(f"{layout}: {shares} of {NUM_QUESTIONS} questions")
        assert len(shares) == num_drivers
        assert min(shares) > 0
        serve.delete("lorid")
    assert len(set(texts[1])) == NUM_QUESTIONS * ROUNDS * len(Role)
    assert texts[2] == texts[1]


def shares_of(replicas: list[psutil.Process]) -> list[int]:
    """How many of the questions each has answered, by its own log, which has all of them soon."""
    logs = [
        one.path for each in replicas for one in each.open_files() if "StudentEngine" in one.path
    ]
    deadline = time.monotonic() + 30
    while True:
        shares = [Path(log).read_text().count("CALL solve OK") for log in logs]
        if sum(shares) >= NUM_QUESTIONS:
            assert sum(shares) == NUM_QUESTIONS
            return shares
        assert time.monotonic() < deadline, shares
        time.sleep(0.05)


def num_replicas() -> int:
    deployments = serve.status().applications["lorid"].deployments
    return deployments["StudentEngine"].replica_states.get("RUNNING", 0)


def wait_for_replicas(number: int, *, timeout_s: float) -> float:
    began = time.monotonic()
    while num_replicas() != number:
        assert time.monotonic() - began < timeout_s, num_replicas()
        time.sleep(0.1)
    return time.monotonic() - began


def test_engines_come_from_none_by_the_load_and_sleep_again():
    scaling = {
        "min_replicas": 0, "max_replicas": 3, "target_ongoing_requests": 4,
        "upscale_delay_s": 0, "downscale_delay_s": 2, "look_back_s": 1,
    }  # fmt: skip
    handle = running(config_of(autoscaling=scaling), text_s=0.3)
    assert num_replicas() == 0
    began = time.monotonic()
    (only,) = asyncio.run(writers_of(handle, QUESTIONS[:1]))
    first_s = time.monotonic() - began

    async def load() -> tuple[set[int], float]:
        written: set[int] = set()
        begin = time.monotonic()

        async def ask_on(question: str) -> None:
            while len(written) < 3 and time.monotonic() - begin < 60:
                (one,) = await writers_of(handle, [question])
                written.update(*one.values())

        await asyncio.gather(*(ask_on(one) for one in QUESTIONS))
        return written, time.monotonic() - begin

    written, all_s = asyncio.run(load())
    assert len(written) == 3
    print(f"from none to an answer {first_s:.1f} s ({only}), to three engines {all_s:.1f} s")
    if IS_FULL:
        print(f"none again after {wait_for_replicas(0, timeout_s=120):.1f} s")
        assert asyncio.run(writers_of(handle, QUESTIONS[:1]))


VLLM = {
    "sampling.max_new_tokens": 24, "feedback.max_rounds": ROUNDS, "engine.max_model_len": 256,
    "engine.num_cpus": 0.3,
}  # fmt: skip


@pytest.mark.vllm
@pytest.mark.skipif(not IS_FULL, reason="three vLLM engines twice: LORID_LAYOUTS=1")
@pytest.mark.parametrize("temperature", [0, 1])
def test_split_and_merged_vllm_engines_write_what_the_shared_one_writes(tmp_path, temperature):
    store = open_store(str(tmp_path / "store"))
    random_triple(store, tmp_path / "triple", seed=1)
    texts = {}
    for layout in ("shared", "split", "merged"):
        changes = {**VLLM, "serving.layout": layout, "sampling.temperature": temperature}
        began = time.monotonic()
        serve.run(app_of_run(f"{store.uri}#demo", overrides=changes), name="lorid")
        handle = serve.get_deployment_handle("StudentEngine", app_name="lorid")
        status = handle.ready.remote().result()
        assert status["refused"] is None
        ready_s = time.monotonic() - began
        texts[layout] = asyncio.run(texts_of(handle, QUESTIONS))
        asked_s = time.monotonic() - began - ready_s
        print(f"{layout}: ready in {ready_s:.0f} s, asked in {asked_s:.1f} s")
        serve.delete("lorid")
    for layout in ("split", "merged"):
        same = [one == other for one, other in zip(texts[layout], texts["shared"], strict=True)]
        print(f"temperature {temperature}: {layout} {sum(same)} of {len(same)} texts as shared")
    assert texts["split"] == texts["shared"]
    assert texts["merged"] == texts["shared"]


async def texts_of(handle: Any, questions: list[str], **asked: Any) -> list[str]:
    answers = await asyncio.gather(
        *(handle.solve.remote(SolveRequest(question=one, seed=5, **asked)) for one in questions)
    )
    return [sampled.text for answer in answers for _, sampled in answer.answer.used]

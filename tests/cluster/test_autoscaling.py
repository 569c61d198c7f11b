"""Ray's autoscaler with its fake cloud: nodes come for what a run asks for, and go when it is idle.

Node types are cluster.yaml's (`fake_cloud.py`). That what no type can hold is refused is also held
without a cluster (tests/local/test_room.py); these take a minute each:

    LORID_AUTOSCALING=1 pytest tests/cluster/test_autoscaling.py -s
"""

import asyncio
import os
import time
from pathlib import Path

import pacing
import pytest
import yaml
from fake_cloud import STAND_IN, Watch, autoscaling_head, node_types, note, said_by
from small import small_config_text

from lorid.api import SolveRequest
from lorid.artifacts.enriched import write_enriched
from lorid.artifacts.records import list_records, publish
from lorid.artifacts.store import open_store
from lorid.config import change_endpoint, dump_config, parse_config
from lorid.demo.generator import generate
from lorid.distributed.inputs import knowledge_inputs
from lorid.presets import demo

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]
by_hand = pytest.mark.skipif(
    os.environ.get("LORID_AUTOSCALING") != "1", reason="LORID_AUTOSCALING=1 runs it"
)
# The CPUs of a node: whoever asks for all of them needs a node of its own, as with one GPU a node.
(NODE_CPUS,) = {kind["resources"]["CPU"] for kind in node_types().values()}


def only_gpu_nodes(*, most: int) -> dict:
    types = {name: kind for name, kind in node_types().items() if STAND_IN in kind["resources"]}
    return {name: {**kind, "max_workers": most} for name, kind in types.items()}


def ready_to_train(folder: Path, **training) -> None:
    """run.yaml, and in its store the knowledge that its training reads; a node for a training."""
    sections = yaml.safe_load(small_config_text(store=folder / "store", name="scaled"))
    sections["training"] |= {
        "num_cpus": NODE_CPUS, "num_epochs_by_role": {}, "num_epochs": 1, "rank": 4, **training
    }  # fmt: skip
    config = parse_config(yaml.safe_dump(sections))
    write_enriched(folder / "rows", list(generate(split="train", count=24, seed=1)))
    publish(
        open_store(config.store), folder / "rows",
        kind="knowledge", name=config.name, inputs=knowledge_inputs(config),
    )  # fmt: skip
    (folder / "run.yaml").write_text(dump_config(config))


def kinds_in(store: Path) -> list[str]:
    return sorted(record.kind for record in list_records(open_store(str(store))))


@by_hand
def test_what_no_node_type_can_hold_ends_the_job_at_once_and_starts_no_node(tmp_path):
    ready_to_train(tmp_path, num_cpus=NODE_CPUS + 1)
    log = tmp_path / "job.log"
    with autoscaling_head(tmp_path) as head, Watch(head) as watch:
        job = head.start_job("train_adapters.py", folder=tmp_path, log=log)
        assert job.wait(timeout=120) == 2, log.read_text()
        assert watch.counts == [(0.0, 0)]
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: no node of this cluster has, or will have, room for training")
    assert f"its nodes have {NODE_CPUS} CPUs" in last


@by_hand
def test_three_workers_come_when_three_adapters_train_and_go_when_they_are_done(tmp_path):
    ready_to_train(tmp_path)
    log = tmp_path / "job.log"
    with autoscaling_head(tmp_path) as head, Watch(head) as watch:
        job = head.start_job("train_adapters.py", folder=tmp_path, log=log)
        assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
        trained_s = time.monotonic() - watch.began
        idle_s = watch.wait_for(0)
    note(
        "three adapters train", workers_over_time=watch.counts, trained_s=round(trained_s, 1),
        gone_s=round(idle_s, 1),
    )  # fmt: skip
    assert "3 trainings of 8 CPUs: all at once, room for 0 now; the autoscaler is asked" in (
        log.read_text()
    )
    assert watch.counts[0][1] == 0
    assert max(count for _, count in watch.counts) == 3
    assert kinds_in(tmp_path / "store") == ["adapter"] * 3 + ["knowledge", "triple"]


@by_hand
def test_a_training_that_has_no_room_says_what_is_missing_and_goes_on_when_there_is(
    tmp_path, monkeypatch
):
    import ray

    from lorid.distributed.cluster import connected

    ready_to_train(tmp_path, mode="fused")
    log = tmp_path / "job.log"
    with autoscaling_head(tmp_path, types=only_gpu_nodes(most=1)) as head:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        with connected():

            @ray.remote(num_cpus=NODE_CPUS)
            class Another:
                def ready(self) -> bool:
                    return True

            another = Another.remote()
            assert ray.get(another.ready.remote(), timeout=120)
            job = head.start_job("train_adapters.py", folder=tmp_path, log=log)
            said = said_by(log, "waiting for room", job=job)
            ray.kill(another)
            assert job.wait(timeout=200) == 0, log.read_text()[-3000:]
    (line,) = [line for line in said.splitlines() if "waiting for room" in line]
    print(line)
    assert line == (
        f"train: waiting for room: 1 x {NODE_CPUS} CPUs; "
        f"free now: 0 of {NODE_CPUS} CPUs, 1 of 1 {STAND_IN}s; no node is on its way"
    )


@by_hand
def test_engines_and_their_nodes_come_with_the_load_and_go_with_it(tmp_path, monkeypatch):
    from ray import cloudpickle, serve

    from lorid.distributed.cluster import connected
    from lorid.distributed.deployments import student_app

    cloudpickle.register_pickle_by_value(pacing)
    monkeypatch.setenv("RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S", "0.5")
    config = change_endpoint(
        demo(),
        [
            f"engine.num_cpus={NODE_CPUS}",
            "serving.autoscaling={min_replicas: 0, max_replicas: 3, target_ongoing_requests: 4, "
            "upscale_delay_s: 0, downscale_delay_s: 3, look_back_s: 1}",
        ],
        source="test",
    )
    with autoscaling_head(tmp_path) as head, Watch(head) as watch:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        with connected():
            serve.start(proxy_location="Disabled")
            app = student_app(config, source=pacing.OneTriple(), factory=pacing.Telling(0.3))
            handle = serve.run(app, name="lorid", route_prefix=None)
            assert watch.now == 0
            began = time.monotonic()
            first_s = answered_s(handle, number=1)
            asyncio.run(ask_until(handle, lambda: watch.now == 3))
            three_s = time.monotonic() - began
            idle_s = watch.wait_for(0, timeout_s=180)
            again_s = answered_s(handle, number=1)
            serve.shutdown()
    note(
        "engines by the load", first_answer_s=round(first_s, 1), three_nodes_s=round(three_s, 1),
        gone_s=round(idle_s, 1), answer_again_s=round(again_s, 1), workers_over_time=watch.counts,
    )  # fmt: skip


def answered_s(handle, *, number: int) -> float:
    """Seconds until so many questions are answered."""

    async def ask() -> None:
        await asyncio.gather(*(_ask(handle, n) for n in range(number)))

    began = time.monotonic()
    asyncio.run(ask())
    return time.monotonic() - began


async def ask_until(handle, claim) -> None:
    """Sixteen questions under way at any time until the claim is true."""
    deadline = time.monotonic() + 180

    async def ask_on(number: int) -> None:
        while not claim():
            assert time.monotonic() < deadline
            await _ask(handle, number)

    await asyncio.gather(*(ask_on(number) for number in range(16)))


async def _ask(handle, number: int) -> None:
    question = f"Tom has {number} apples and finds 4 more. How many?"
    answer = await handle.solve.remote(SolveRequest(question=question, max_rounds=3))
    assert len(answer.answer.rounds) == 3

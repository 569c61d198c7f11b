"""A node is lost while the teacher works, roles train, problems are graded; and then the head.

Each ends with the files of a run that lost nothing. The cluster is Ray's fake cloud: its autoscaler
brings another node by itself. The teacher and the engines that grade are scripted.

    LORID_AUTOSCALING=1 pytest tests/cluster/test_node_loss.py -s          # with the time lost
"""

import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pacing
import pytest
from evaluation_driver import run as evaluate
from fake_cloud import Head, Watch, autoscaling_head, kill_node, node_types, note
from free_ports import free_port
from misbehaving_server import misbehaving_server
from teach_runs import knowledge_records, prepare, write_config, write_problems
from test_resume import rows
from training_cluster import saved_step, training_config, uninterrupted, with_knowledge
from triple_files import publish_triple, write_base

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, dump_config, load_config
from lorid.method.roles import Role
from lorid.training.loop import ADAPTER_FOLDER

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(500),
    pytest.mark.skipif(
        os.environ.get("LORID_AUTOSCALING") != "1", reason="LORID_AUTOSCALING=1 runs it"
    ),
]
WEIGHTS = "adapter_model.safetensors"
(NODE_CPUS,) = {kind["resources"]["CPU"] for kind in node_types().values()}
NUM_TAUGHT, NUM_IN_FLIGHT, NUM_GRADED, NUM_STEPS, NUM_PROBLEMS = 160, 8, 80, 40, 40


def wait_until(claim: Callable[[], Any], *, timeout_s: float = 200) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def lost(seconds: Mapping[str, float]) -> dict[str, float]:
    whole = seconds["whole"]
    return {name: round(took - whole, 1) for name, took in seconds.items() if name != "whole"}


def lose_head(head: Head, job: subprocess.Popen[bytes]) -> None:
    """Ray keeps a cluster's state in the head alone: with it go the driver and every node."""
    head.kill()
    job.kill()
    job.wait()
    head.start()


def files_of(store: str, *, kind: str, into: Path) -> dict[str, bytes]:
    """The files of the one artifact of that kind."""
    (record,) = [record for record in list_records(open_store(store)) if record.kind == kind]
    folder = fetch(open_store(store), record, into=into)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_node_or_the_head_is_lost_while_the_teacher_works(tmp_path):
    files, seconds, asked = {}, {}, {}
    with (
        misbehaving_server(latency={"kind": "constant", "mean_s": 0.5}) as server,
        autoscaling_head(tmp_path) as head,
    ):
        for name in ("whole", "lost", "headless"):
            folder = tmp_path / name
            folder.mkdir()
            write_problems(folder, num=NUM_TAUGHT)
            write_config(folder, server, api={"max_in_flight": NUM_IN_FLIGHT})
            prepare(folder)
            before, began = server.counts()["num_requests"], time.monotonic()

            def start(folder: Path = folder):
                log = folder / "job.log"
                return head.start_job("generate_knowledge.py", folder=folder, log=log)

            job = start()
            if name != "whole":
                wait_until(lambda n=before: server.counts()["num_requests"] > n + NUM_TAUGHT // 3)
            if name == "lost":
                kill_node(head.workers("TeacherWorker")[0][0])
            if name == "headless":
                lose_head(head, job)
                job = start()
            assert job.wait(timeout=200) == 0, (folder / "job.log").read_text()[-3000:]
            seconds[name] = round(time.monotonic() - began, 1)
            asked[name] = server.counts()["num_requests"] - before
            store = str(folder / "store")
            assert len(knowledge_records(store)) == 1
            files[name] = files_of(store, kind="knowledge", into=folder / "files")
    note(
        "a node or the head lost while the teacher works", seconds=seconds,
        lost_s=lost(seconds), num_questions=NUM_TAUGHT, num_asked=asked,
    )  # fmt: skip
    assert asked["whole"] == NUM_TAUGHT
    # What was on its way; and of a head what had come and was not yet written.
    assert asked["lost"] <= NUM_TAUGHT + NUM_IN_FLIGHT
    assert asked["headless"] <= NUM_TAUGHT + 2 * NUM_IN_FLIGHT
    assert files["whole"] == files["lost"] == files["headless"]


def test_a_node_and_then_the_head_are_lost_while_roles_train(tmp_path):
    store = tmp_path / "store"
    config = with_knowledge(
        training_config(
            store, mode="fused", num_steps=NUM_STEPS, count=NUM_PROBLEMS, num_cpus=NODE_CPUS,
            checkpoint_every_steps=4,
        ),
        tmp_path / "knowledge",
        count=NUM_PROBLEMS,
    )  # fmt: skip
    (tmp_path / "run.yaml").write_text(dump_config(config))
    log, lost_s = tmp_path / "job.log", {}

    def start(head: Head):
        return head.start_job("train_adapters.py", folder=tmp_path, log=log)

    with (
        uninterrupted(config, tmp_path, count=NUM_PROBLEMS) as whole,
        autoscaling_head(tmp_path) as head,
    ):
        job = start(head)
        first = wait_until(lambda: saved_step(store))
        kill_node(head.workers("RayTrainWorker")[0][0])
        began = time.monotonic()
        second = wait_until(lambda: (step := saved_step(store)) > first + 4 and step)
        lost_s["node"] = round(time.monotonic() - began, 1)
        began = time.monotonic()
        lose_head(head, job)
        job = start(head)
        wait_until(lambda: saved_step(store) > second)
        lost_s["head"] = round(time.monotonic() - began, 1)
        assert job.wait(timeout=200) == 0, log.read_text()[-3000:]
    note("a node and the head lost while roles train", seconds_to_the_next_checkpoint=lost_s)
    assert second < NUM_STEPS
    records = {record.name: record for record in list_records(open_store(config.store))}
    for role in Role:
        found = fetch(open_store(config.store), records[f"mortal-{role}"], into=tmp_path / role)
        assert (found / WEIGHTS).read_bytes() == (
            whole / role / ADAPTER_FOLDER / WEIGHTS
        ).read_bytes()
        assert rows(found) == rows(whole / role)


def test_a_node_is_lost_while_problems_are_graded(tmp_path, monkeypatch):
    from lorid.distributed.cluster import connected

    config = load_config(
        None,
        preset="demo",
        overrides=[
            f"engine.num_cpus={NODE_CPUS - 1}", "serving.num_replicas=2",
            f"serving.port={free_port()}",
        ],
    )  # fmt: skip
    base, files = write_base(tmp_path / "base"), {}
    seconds: dict[str, float] = {}
    with autoscaling_head(tmp_path) as head, Watch(head) as watch:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        with connected(), endpoint(config) as url:
            for name in ("whole", "lost"):
                store = str(tmp_path / name)
                triple = publish_triple(open_store(store), tmp_path / f"{name}-made", base=base)
                began, before = time.monotonic(), num_solved(url)
                with ThreadPoolExecutor(1) as pool:
                    evaluated = pool.submit(
                        evaluate, store=store, url=url, triple=triple.address,
                        num_problems=NUM_GRADED, grade_base=False,
                    )  # fmt: skip
                    if name == "lost":
                        wait_until(lambda n=before: num_solved(url) > n + NUM_GRADED // 4)
                        kill_node(head.workers("StudentEngine")[0][0])
                    evaluated.result(timeout=240)
                seconds[name] = round(time.monotonic() - began, 1)
                files[name] = files_of(store, kind="evaluation", into=tmp_path / f"{name}-files")
    note(
        "a node lost while problems are graded", seconds=seconds, lost_s=lost(seconds),
        workers_over_time=watch.counts,
    )  # fmt: skip
    assert files["whole"] == files["lost"]
    assert files["whole"]["attempts.jsonl"].count(b"\n") == NUM_GRADED


@contextmanager
def endpoint(config: RunConfig) -> Iterator[str]:
    """The whole graph with scripted engines whose texts take their time."""
    from ray import cloudpickle, serve
    from ray.serve.config import HTTPOptions

    from lorid.client import Client
    from lorid.distributed.deployments import build_app

    cloudpickle.register_pickle_by_value(pacing)
    port = config.serving.port
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    app = build_app(config.endpoint(), source=pacing.OneTriple(), factory=pacing.Paced(0.5))
    serve.run(app, name="lorid", route_prefix="/")
    url = f"http://127.0.0.1:{port}"
    try:
        with Client(url) as client:
            client.wait_until_ready(timeout_s=120)
        yield url
    finally:
        serve.shutdown()


def num_solved(url: str) -> int:
    """Questions that the ingress of now has solved."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        found = re.findall(r"^lorid_questions_total\{.*\} ([\d.]+)$", answer.read().decode(), re.M)
        return int(sum(float(count) for count in found))
    return 0

"""A node is lost while the teacher works, roles train, problems are graded; and then the head.

Each ends with the files of a run that lost nothing. The cluster is Ray's fake cloud: its autoscaler
brings another node by itself. The teacher and the engines that grade are scripted.
Not yet run to the end.

    LORID_AUTOSCALING=1 pytest tests/cluster/test_node_loss.py -s          # with the time lost
"""

import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pacing
import pytest
from fake_cloud import Head, Watch, autoscaling_head, kill_node, node_types, note
from misbehaving_server import misbehaving_server
from small import free_port
from teach_runs import knowledge_records, prepare, write_config, write_problems
from test_resume import rows
from training_cluster import saved_step, training_config, uninterrupted, with_knowledge

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, dump_config, load_config
from lorid.demo.generator import generate
from lorid.method.problems import Problem
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
NUM_TAUGHT, NUM_GRADED, NUM_STEPS, NUM_PROBLEMS = 160, 80, 40, 40


def wait_until(claim: Callable[[], Any], *, timeout_s: float = 200) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def lost(seconds: Mapping[str, float]) -> float:
    return round(seconds["lost"] - seconds["whole"], 1)


def files_of(store: str, *, kind: str, into: Path) -> dict[str, bytes]:
    """The files of the one artifact of that kind."""
    (record,) = [record for record in list_records(open_store(store)) if record.kind == kind]
    folder = fetch(open_store(store), record, into=into)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_node_is_lost_while_the_teacher_works(tmp_path):
    files, seconds = {}, {}
    with (
        misbehaving_server(latency={"kind": "constant", "mean_s": 0.5}) as server,
        autoscaling_head(tmp_path) as head,
    ):
        for name in ("whole", "lost"):
            folder = tmp_path / name
            folder.mkdir()
            write_problems(folder, num=NUM_TAUGHT)
            write_config(folder, server, api={"max_in_flight": 8})
            prepare(folder)
            asked, began = server.counts()["num_requests"], time.monotonic()
            job = head.start_job("generate_knowledge.py", folder=folder, log=folder / "job.log")
            if name == "lost":
                wait_until(lambda n=asked: server.counts()["num_requests"] > n + NUM_TAUGHT // 3)
                kill_node(head.workers("TeacherWorker")[0][0])
            assert job.wait(timeout=200) == 0, (folder / "job.log").read_text()[-3000:]
            seconds[name] = round(time.monotonic() - began, 1)
            store = str(folder / "store")
            assert len(knowledge_records(store)) == 1
            files[name] = files_of(store, kind="knowledge", into=folder / "files")
        num_requests = server.counts()["num_requests"]
    again = num_requests - 2 * NUM_TAUGHT
    note(
        "a node lost while the teacher works", seconds=seconds, lost_s=lost(seconds),
        num_questions=NUM_TAUGHT, num_asked_again=again,
    )  # fmt: skip
    assert again <= 8
    assert files["whole"] == files["lost"]


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
        # Ray keeps a cluster's state in the head alone: with it go the driver and every node.
        head.kill()
        job.kill()
        job.wait()
        began = time.monotonic()
        head.start()
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
    from lorid.distributed.evaluation import grade_split

    config = load_config(
        None,
        preset="demo",
        overrides=[
            f"engine.num_cpus={NODE_CPUS - 1}", "serving.num_replicas=2",
            f"serving.port={free_port()}", "evaluation.grade_base=false",
            "evaluation.items_per_request=5", "evaluation.requests_in_flight=2",
        ],
    )  # fmt: skip
    problems: list[Problem] = [
        one.problem for one in generate(split="test", count=NUM_GRADED, seed=1)
    ]
    seconds: dict[str, float] = {}
    with autoscaling_head(tmp_path) as head, Watch(head) as watch:
        monkeypatch.setenv("RAY_ADDRESS", head.address)
        with connected(), endpoint(config) as url:
            for name in ("whole", "lost"):
                folder = tmp_path / name
                folder.mkdir()
                began, before = time.monotonic(), num_solved(url)
                thread = threading.Thread(
                    target=lambda to=folder: grade_split(config, problems, url=url, folder=to)
                )
                thread.start()
                if name == "lost":
                    wait_until(lambda n=before: num_solved(url) > n + NUM_GRADED // 4)
                    kill_node(head.workers("StudentEngine")[0][0])
                thread.join(timeout=240)
                seconds[name] = round(time.monotonic() - began, 1)
    note(
        "a node lost while problems are graded", seconds=seconds, lost_s=lost(seconds),
        workers_over_time=watch.counts,
    )  # fmt: skip
    first, second = (
        (tmp_path / name / "attempts.jsonl").read_bytes() for name in ("whole", "lost")
    )
    assert first == second
    assert first.count(b"\n") == NUM_GRADED


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

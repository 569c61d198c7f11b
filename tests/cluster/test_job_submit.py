"""`ray job submit` of jobs/distill.py to a real local cluster, token authentication on.

Config and store are in a bucket, as on any cluster of several nodes. Its server goes away while the
job works: when the knowledge stage publishes, and when a trainer uploads the checkpoint that it
makes because the job is stopped. The job is submitted again and goes on. What it made is then
deployed from there on that cluster by `serve deploy`, and asked over HTTP.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import boto3
import psutil
import pytest
import yaml
from fault_proxy import FaultProxy
from ray.job_submission import JobStatus, JobSubmissionClient
from small import free_port, marked, small_config_text

from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.client import Client

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.s3, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
# 60 has been run; CI waits less, for its time.
OUTAGE_S = float(os.environ.get("LORID_OUTAGE_S", "2"))
FAULT_RATE = float(os.environ.get("LORID_FAULT_RATE", "0.05"))
RUNTIME_ENV = yaml.safe_load((ROOT / "deploy" / "runtime_env.yaml").read_text())
FINAL = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


@pytest.fixture(autouse=True)
def proxy(s3_bucket, monkeypatch):
    """What everything here reaches the bucket's server through; one request in twenty fails."""
    with FaultProxy(os.environ["AWS_ENDPOINT_URL"], rate=FAULT_RATE, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def head(s3_bucket, tmp_path, monkeypatch):
    """A head node of its own, on free ports; it ends with its children.

    Its processes get the bucket's server and keys from the environment, so the bucket comes first.
    """
    port, dashboard = free_port(), free_port()
    # As cluster.yaml sets it; without it Ray kills a job three seconds after it is stopped.
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "60")
    monkeypatch.setenv("LORID_TEST_MARK", tmp_path.name)
    # Not below tmp_path: the paths of Ray's sockets must stay short.
    folder = tempfile.mkdtemp(prefix="lorid-ray-")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        "--num-cpus=8", "--object-store-memory=300000000", "--min-worker-port=0",
        "--max-worker-port=0", f"--ray-client-server-port={free_port()}",
        # In a folder of its own it leaves no address of a cluster that is gone to the next `ray`.
        f"--temp-dir={folder}",
        # Without a port of its own the agent of a cluster that is still ending keeps the default.
        f"--dashboard-agent-listen-port={free_port()}",
    ]  # fmt: skip
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"CI": ""})
    try:
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        # At once: asked politely, Ray lets the endpoint drain first.
        for member in (*psutil.Process(process.pid).children(recursive=True), process):
            member.kill()
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def connect(url: str) -> JobSubmissionClient:
    deadline = time.monotonic() + 90
    while True:
        try:
            return JobSubmissionClient(url)
        except (ConnectionError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def submit(client: JobSubmissionClient, entrypoint: str, working_dir: Path) -> str:
    deadline = time.monotonic() + 90
    while True:
        try:
            return client.submit_job(
                entrypoint=entrypoint,
                runtime_env=RUNTIME_ENV | {"working_dir": str(working_dir)},
            )
        except RuntimeError as error:
            # The dashboard answers some seconds before its node's agent does.
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def run_job(client: JobSubmissionClient, entrypoint: str, working_dir: Path):
    submission = submit(client, entrypoint, working_dir)
    memory = 0
    while client.get_job_status(submission) not in FINAL:
        memory = max(memory, driver_bytes(entrypoint.split()))
        time.sleep(1)
    print(f"driver: {memory / 1024**2:.0f} MiB")
    # The head that cluster.yaml starts has 16 GB for the driver and for Ray.
    assert memory < 2 * 1024**3
    return client.get_job_info(submission), client.get_job_logs(submission)


def driver_bytes(command: list[str]) -> int:
    """What the driver holds now: not the shell that Ray starts it by, nor the workers."""
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if process.info["cmdline"] == command:
            return process.info["memory_info"].rss
    return 0


def stop_while_training(client: JobSubmissionClient, entrypoint: str, working_dir: Path) -> str:
    """Submit, wait for a role's first step, stop as `ray job stop` does; returns the log."""
    submission = submit(client, entrypoint, working_dir)
    while "\ntrain: " not in client.get_job_logs(submission):
        assert client.get_job_status(submission) not in FINAL, client.get_job_logs(submission)
        time.sleep(0.2)
    client.stop_job(submission)
    while client.get_job_status(submission) not in FINAL:
        time.sleep(0.2)
    assert client.get_job_status(submission) == JobStatus.STOPPED
    return client.get_job_logs(submission)


def saved_steps(bucket: str) -> dict[str, int]:
    """How far each role has come by the newest checkpoint that Ray Train has written down."""
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    steps = {}
    for key in keys:
        if key.endswith("/checkpoint_manager_snapshot.json"):
            snapshot = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            metrics = snapshot["latest_checkpoint_result"]["metrics"]
            steps.update({role: found["step"] for role, found in metrics.items()})
    return steps


def first_steps(log: str) -> dict[str, int]:
    """The step that each role's first line in a log names."""
    lines = re.findall(r"^train: (\w+) (\d+)/", log, re.MULTILINE)
    return {role: int(step) for role, step in reversed(lines)}


def at_work(mark: str) -> list[str]:
    """The cluster's processes that hold a task or an actor, except for those that Ray keeps."""
    names = [(process.cmdline() or [""])[0] for process in marked(mark)]
    # Ray Data's begin with an underscore.
    own = ("ray::IDLE", "ray::JobSupervisor", "ray::_", "ray::ActorLocationTracker")
    return [name for name in names if name.startswith("ray::") and not name.startswith(own)]


def deploy(config: Path, *, address: str) -> None:
    """`serve deploy` as it is typed; the cluster finds `serve.app` on its import path."""
    serve = str(Path(sys.executable).with_name("serve"))
    command = [serve, "deploy", str(config), "--address", address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def publishes_knowledge(asked: list[str]) -> Callable[[str, str], bool]:
    """Knows the first content that is stored after somebody has asked for a knowledge record."""

    def moment(method: str, path: str) -> bool:
        if "/knowledge/" in path and path.endswith("record.json"):
            asked.append(path)
        return bool(asked) and method == "PUT" and "/blobs/" in path

    return moment


def uploads_checkpoint(method: str, path: str) -> bool:
    """Knows a file of a checkpoint, on its way from a trainer."""
    is_file = "/checkpoint_" in path and not path.endswith("/")
    return method in ("PUT", "POST") and "/train-runs/" in path and is_file


def test_a_submitted_job_runs_the_pipeline_and_its_exit_code_means_something(
    head, proxy, s3_bucket, tmp_path
):
    store = f"s3://{s3_bucket}/lorid"
    working_dir = tmp_path / "project"
    for folder in ("jobs", "lorid"):
        shutil.copytree(ROOT / folder, working_dir / folder)
    sections = yaml.safe_load(small_config_text(store=store, name="job"))
    # Enough steps to be stopped between them, and no checkpoint but that of the stop and the last.
    sections["training"] |= {"num_epochs": 4, "checkpoint_every_steps": 1000}
    text = yaml.safe_dump(sections)
    boto3.client("s3").put_object(Bucket=s3_bucket, Key="runs/job.yaml", Body=text.encode())
    client = connect(head)
    entrypoint = f"{sys.executable} jobs/distill.py --config s3://{s3_bucket}/runs/job.yaml"
    asked: list[str] = []
    outages = [
        proxy.gone_at(moment, seconds=OUTAGE_S)
        for moment in (publishes_knowledge(asked), uploads_checkpoint)
    ]

    stopped = stop_while_training(client, entrypoint, working_dir)
    assert "train: saving" in stopped
    assert "Traceback" not in stopped
    saved = {role: step for role, step in saved_steps(s3_bucket).items() if step < 12}
    assert saved, stopped[-3000:]
    deadline = time.monotonic() + 60
    while (left := at_work(tmp_path.name)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left

    info, log = run_job(client, entrypoint, working_dir)
    assert info.status == JobStatus.SUCCEEDED, log[-3000:]
    assert log.count("already done, skipped") >= 2
    again = first_steps(log)
    assert all(again.get(role, 12) > step for role, step in saved.items()), (saved, again)
    assert info.driver_exit_code == 0
    assert "mutual feedback" in log
    assert all(outage.ended.is_set() for outage in outages)
    log = stopped + log
    print(*(line for line in log.splitlines() if "store s3://" in line), sep="\n")
    records = list_records(open_store(store))
    kinds = {record.kind for record in records}
    assert kinds == {"data", "knowledge", "adapter", "triple", "evaluation", "report"}
    for record in records:
        fetch(open_store(store), record, into=tmp_path / record.address)
    (report,) = tmp_path.glob("report/*/*/report.html")
    assert report.stat().st_size > 1000

    sections = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    sections["http_options"]["port"] = port = free_port()
    sections["applications"][0]["args"] = {"run": f"{store}#job"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(sections))
    deploy(tmp_path / "serve.yaml", address=head)
    with Client(f"http://127.0.0.1:{port}") as endpoint:
        endpoint.wait_until_ready(timeout_s=180)
        question = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
        solved = endpoint.solve(question, seed=1)
        assert solved["outcome"] in {"agreed", "exhausted", "no_answer"}
        assert 1 <= len(solved["rounds"]) <= 3
        assert endpoint.solve(question, seed=1)["rounds"] == solved["rounds"]
        graded = endpoint.grade(
            [
                {"id": "solved", "question": question, "reference": "7"},
                {"id": "compared", "question": question, "reference": "7", "submission": "8"},
            ],
            seed=1,
        )
        first, second = graded["results"]
        assert (first["answer"], first["num_rounds"]) == (solved["answer"], solved["num_rounds"])
        assert second["verdict"] == "incorrect"

    info, log = run_job(client, f"{entrypoint} --set training.rank=0", working_dir)
    assert info.driver_exit_code == 2
    assert "training.rank" in log

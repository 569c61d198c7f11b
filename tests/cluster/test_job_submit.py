"""`ray job submit` of jobs/distill.py to a real local cluster, token authentication on.

The job's store is a bucket, as on any cluster of several nodes, and its server goes away while the
job works: when the knowledge stage publishes, and when a trainer uploads a checkpoint. While it
trains it is stopped, by `ray job stop`'s own call, and submitted again. What it made is then
deployed from there on that cluster by `serve deploy`, and asked over HTTP.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from fault_proxy import FaultProxy
from free_ports import free_port
from ray.job_submission import JobStatus, JobSubmissionClient
from small import CUT_OFF, said_of_too_long, small_config_text

from lorid.artifacts.enriched import read_enriched
from lorid.artifacts.records import fetch, list_records
from lorid.artifacts.store import open_store
from lorid.client import Client
from lorid.config import RunConfig, parse_config
from lorid.method.roles import Role
from lorid.training.loop import ADAPTER_FOLDER

pytestmark = [pytest.mark.cluster, pytest.mark.vllm, pytest.mark.s3, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
# 60 has been run; CI waits less, for its time.
OUTAGE_S = float(os.environ.get("LORID_OUTAGE_S", "2"))
FAULT_RATE = float(os.environ.get("LORID_FAULT_RATE", "0.05"))
WEIGHTS = "adapter_model.safetensors"
# The one role that trains for long enough to be stopped, also where a step takes a moment only; no
# checkpoint but the one before the end.
EPOCHS = {"intuitive_reasoner": 12, "knowledge_generator": 1, "deep_reasoner": 1}
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
    # As cluster.yaml has it: so long may a stopped job take to save what it trains.
    environment = os.environ | {"CI": "", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
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
                entrypoint=entrypoint, runtime_env={"working_dir": str(working_dir)}
            )
        except RuntimeError as error:
            # The dashboard answers some seconds before its node's agent does.
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def finished(client: JobSubmissionClient, submission: str):
    while client.get_job_status(submission) not in FINAL:
        time.sleep(1)
    return client.get_job_info(submission), client.get_job_logs(submission)


def run_job(client: JobSubmissionClient, entrypoint: str, working_dir: Path):
    return finished(client, submit(client, entrypoint, working_dir))


def stop_while_training(client: JobSubmissionClient, entrypoint: str, working_dir: Path) -> str:
    """Submit the job and stop it once the first reasoner takes steps; what it said."""
    submission = submit(client, entrypoint, working_dir)
    while steps_of(Role.INTUITIVE_REASONER, client.get_job_logs(submission)) is None:
        assert client.get_job_status(submission) not in FINAL, client.get_job_logs(submission)
        time.sleep(0.2)
    assert client.stop_job(submission)
    info, log = finished(client, submission)
    assert info.status == JobStatus.STOPPED, log[-3000:]
    deadline = time.monotonic() + 60
    while left := [one for one in psutil.process_iter(["cmdline"]) if trains(one)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    return log


def trains(process: psutil.Process) -> bool:
    """Whether it is a process of Ray Train of this cluster, or the driver."""
    title = " ".join(process.info["cmdline"] or [])
    is_actor = "ray::RayTrainWorker" in title or "ray::TrainController" in title
    return is_actor or ("jobs/distill.py" in title and "run.yaml" in title)


def steps_of(role: Role, log: str) -> int | None:
    """The step that a log's first line of the role's training shows."""
    found = re.search(rf"^train: {role.short} (\d+)/", log, re.MULTILINE)
    return None if found is None else int(found[1])


def saved_steps(log: str) -> dict[Role, int]:
    """What a stopped training said that it saved."""
    said = re.findall(r"^train: (\w+): saved at step (\d+)$", log, re.MULTILINE)
    return {Role(role): int(step) for role, step in said}


def undisturbed(config: RunConfig, knowledge: Path, *, role: Role, out: Path) -> bytes:
    """The adapter of a training that nobody stopped, here and without Ray."""
    import torch

    from lorid.distributed.training_worker import encode_roles
    from lorid.training.loop import TrainingSession
    from lorid.training.ranks import CPU, Ranks

    torch.set_num_threads(1)
    examples, _ = encode_roles(config, list(read_enriched(knowledge)), roles=[role])
    session = TrainingSession(config, examples=examples, device=CPU, ranks=Ranks())
    while session.is_active:
        session.train_step()
    session.save(out)
    return (out / role / ADAPTER_FOLDER / WEIGHTS).read_bytes()


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
    sections["training"] |= {
        "num_epochs_by_role": EPOCHS, "checkpoint_every_steps": 1000,
        "max_sequence_tokens": CUT_OFF, "too_long": "truncate",
    }  # fmt: skip
    (working_dir / "run.yaml").write_text(yaml.safe_dump(sections))
    client = connect(head)
    python = sys.executable
    asked: list[str] = []
    outages = [
        proxy.gone_at(moment, seconds=OUTAGE_S)
        for moment in (publishes_knowledge(asked), uploads_checkpoint)
    ]

    stopped = stop_while_training(
        client, f"{python} jobs/distill.py --config run.yaml", working_dir
    )
    first = Role.INTUITIVE_REASONER
    saved = saved_steps(stopped)[first]
    assert stopped.rstrip().endswith("run again to resume"), stopped

    info, log = run_job(client, f"{python} jobs/distill.py --config run.yaml", working_dir)
    assert info.status == JobStatus.SUCCEEDED, log[-3000:]
    assert info.driver_exit_code == 0
    assert "mutual feedback" in log
    assert all(outage.ended.is_set() for outage in outages)
    print(*(line for line in log.splitlines() if "store s3://" in line), sep="\n")
    records = list_records(open_store(store))
    kinds = {record.kind for record in records}
    assert kinds == {"data", "knowledge", "adapter", "triple", "evaluation", "report"}
    for record in records:
        fetch(open_store(store), record, into=tmp_path / record.address)
    (deep,) = (record for record in records if record.name == f"job-{Role.DEEP_REASONER}")
    assert 0 < deep.details["num_truncated"] <= 48
    assert said_of_too_long(stopped + log, adapter=deep), stopped + log
    resumed_at = steps_of(first, log)
    assert resumed_at is not None, stopped
    assert resumed_at >= saved
    (knowledge,), (adapter,) = (
        tmp_path.glob("knowledge/*/*"), tmp_path.glob(f"adapter/job-{first}/*")
    )  # fmt: skip
    config = parse_config((working_dir / "run.yaml").read_text())
    assert (adapter / WEIGHTS).read_bytes() == undisturbed(
        config, knowledge, role=first, out=tmp_path / "undisturbed"
    )
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

    info, log = run_job(
        client, f"{python} jobs/distill.py --config run.yaml --set training.rank=0", working_dir
    )
    assert info.driver_exit_code == 2
    assert "training.rank" in log

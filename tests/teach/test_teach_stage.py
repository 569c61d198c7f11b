"""The knowledge stage on Ray with an API teacher: rejects, retries, the cap, no key anywhere."""

import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest
import ray
import vllm_server
from misbehaving_server import misbehaving_server

from lorid.artifacts.records import list_records
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, load_config
from lorid.distributed.cluster import connected
from lorid.distributed.pipeline import run_pipeline
from lorid.distributed.retries import next_retry
from lorid.errors import BudgetSpent, TeacherRefused

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
KEY = "sk-of-the-stage-0123456789"
NUM = 100


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        with connected():
            yield


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY_OF_THE_TEST", KEY)
    latency = {"kind": "constant", "mean_s": 0.01}
    with misbehaving_server(api_key=KEY, latency=latency, retry_after_s=0.05) as server:
        yield server


def logs_of_the_cluster() -> Path:
    """Where this test's own Ray processes log; Ray has no public name for it."""
    from ray._private import worker

    return Path(worker._global_node.get_logs_dir_path())


def metrics_of_the_cluster(prefix: str, *, run: str) -> dict[str, float]:
    """What this node's Ray shows to Prometheus of a run, by name.

    Ray goes on showing the last values of processes that have ended, so those of other runs of
    this cluster are there too.
    """
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    found: Counter[str] = Counter()
    for line in httpx.get(url, trust_env=False, timeout=10).text.splitlines():
        if line.startswith(prefix) and f'run="{run}"' in line:
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0].removeprefix(prefix)] += float(value)
    return dict(found)


def api_of(server) -> dict:
    return {
        "model": "m", "base_url": server.url, "api_key_env": "TEACHER_KEY_OF_THE_TEST",
        "max_in_flight": 16, "num_workers": 2,
    }  # fmt: skip


def config_of(folder: Path, **teacher) -> RunConfig:
    config = load_config(
        None,
        preset="demo",
        overrides=[f"store={folder / 'store'}", f"data.num_train={NUM}", "data.num_test=4"],
    )
    prices = {"input_per_million": 1.0, "output_per_million": 10.0}
    changes = {"kind": "api", "prices": prices, "batch_rows": 16, **teacher}
    merged = config.model_dump(mode="json")
    merged["teacher"] |= changes
    return RunConfig.model_validate(merged)


def run(config: RunConfig, lines: list[str] | None = None):
    announce = (lines if lines is not None else []).append
    return run_pipeline(config, stages=("prepare", "knowledge"), announce=announce)["knowledge"]


@pytest.mark.usefixtures("cluster")
def test_rejects_are_set_aside_and_retried_alone(server, tmp_path, capfd):
    server.change(stubborn={"wrong keys": 0.1}, faults={"500": 0.03, "cut": 0.03})
    config = config_of(tmp_path, api=api_of(server))
    first = run(config)
    num_rejected = first.details["num_rejected"]
    assert 1 <= num_rejected <= 30
    assert first.details["num_kept"] == NUM - num_rejected
    assert set(first.details["rejected_because"]) == {"wrong-shape"}
    assert first.details["spent"] > 0
    num_asked = server.counts()["num_requests"]

    server.change(stubborn={}, faults={})
    retry = next_retry(config, announce=print)
    second = run(retry)
    assert retry.teacher.retry_rejects == 1
    assert second.address != first.address
    assert second.details["num_kept"] == NUM
    assert server.counts()["num_requests"] == num_asked + num_rejected
    assert next_retry(config, announce=print) == retry  # nothing is left to retry

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    files += [path for path in logs_of_the_cluster().rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    output = capfd.readouterr()
    assert KEY not in output.out + output.err


@pytest.mark.usefixtures("cluster")
def test_the_cap_stops_the_stage_and_a_higher_one_goes_on(server, tmp_path):
    config = config_of(tmp_path, api=api_of(server), max_cost=0.05)
    with pytest.raises(BudgetSpent, match=r"raise teacher\.max_cost and run again") as error:
        run(config)
    assert error.value.exit_code == 3
    store = open_store(config.store)
    assert list_records(store, kind="knowledge") == []
    paid = server.counts()["num_requests"]
    assert 5 < paid < NUM
    record = run(config_of(tmp_path, api=api_of(server), max_cost=5.0))
    assert record.details["num_reused"] == paid
    assert record.details["num_kept"] == NUM
    assert server.counts()["num_requests"] == NUM


@pytest.mark.usefixtures("cluster")
def test_ray_s_metrics_show_the_stage_while_it_runs(server, tmp_path):
    server.change(latency={"kind": "constant", "mean_s": 0.5})
    seen: list[dict[str, float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            seen.append(metrics_of_the_cluster("ray_lorid_teacher_", run="watched"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        config = config_of(tmp_path, api=api_of(server))
        record = run(config.model_copy(update={"name": "watched"}))
    finally:
        over.set()
        watcher.join()
    assert record.details["num_kept"] == NUM
    # The desk counts permits: those of 16 slots, and half as many that workers have in stock.
    assert 1 <= max(metrics.get("num_in_flight", 0) for metrics in seen) <= 24
    assert server.counts()["most_in_flight"] <= 16
    responses = [metrics["num_responses"] for metrics in seen if "num_responses" in metrics]
    assert responses == sorted(responses)
    assert 1 <= responses[-1] <= NUM
    assert 0 < max(metrics.get("spent", 0) for metrics in seen) <= record.details["spent"]


@pytest.mark.vllm
@pytest.mark.usefixtures("cluster")
def test_vllm_s_own_server_teaches(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY_OF_THE_TEST", "another key")
    with vllm_server.vllm_server(tmp_path) as url:
        api = {
            "model": vllm_server.MODEL, "base_url": url, "response_format": "json_schema",
            "api_key_env": "TEACHER_KEY_OF_THE_TEST", "max_in_flight": 32,
        }  # fmt: skip
        config = config_of(tmp_path, api=api)
        with pytest.raises(TeacherRefused, match="401"):
            run(config)
        monkeypatch.setenv("TEACHER_KEY_OF_THE_TEST", vllm_server.KEY)
        record = run(config)
    # The gold rules are what this teacher has learned; a few of its answers may be refused.
    assert record.details["num_kept"] >= 0.9 * NUM
    assert record.details["num_kept"] + record.details["num_rejected"] == NUM
    assert record.details["num_generated_tokens"] > 10 * NUM

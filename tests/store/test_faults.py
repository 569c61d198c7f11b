"""On the real server, with faults between: what is published is whole, what fails says why."""

import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from fault_proxy import FAULTS

from lorid.artifacts import retries
from lorid.artifacts.leases import held, unlock
from lorid.artifacts.records import Detail, fetch, load_record, publish
from lorid.artifacts.stages import run_stage
from lorid.artifacts.store import open_store
from lorid.errors import ArtifactError, ArtifactIncomplete

pytestmark = pytest.mark.s3
MIB = 1024**2
NUM_ARTIFACTS = int(os.environ.get("LORID_FAULT_ARTIFACTS", "15"))
OUTAGE_S = float(os.environ.get("LORID_OUTAGE_S", "2"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.timeout(300)
def test_with_faults_in_a_twentieth_of_the_requests_all_is_published_and_right(
    s3_bucket, proxy, make_folder, tmp_path
):
    proxy.rate = 0.05
    store = open_store(f"s3://{s3_bucket}/x")

    def there_and_back(number: int) -> None:
        sizes = {f"f{i}": 1000 * i for i in range(8)} | {"d/large": 17 * MIB * (number % 10 == 0)}
        folder = make_folder(f"in{number}", sizes)
        record = publish(store, folder, kind="data", name=f"n{number}", inputs={"n": number})
        out = fetch(store, load_record(store, record.address), into=tmp_path / f"out{number}")
        assert contents(out) == contents(folder)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(there_and_back, range(NUM_ARTIFACTS)))
    print(f"{proxy.num_requests} requests, faults: {dict(proxy.seen)}")
    assert sum(proxy.seen.values()) >= 5


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_survived(s3_bucket, proxy, make_folder, tmp_path, fault):
    store = open_store(f"s3://{s3_bucket}/x")
    folder = make_folder("in", {"small": 10, "large": 17 * MIB})
    store.list("")
    proxy.rate, proxy.faults = 0.3, (fault,)
    # Damaged content shows only when a file is whole; it is fetched twice at most.
    proxy.limit = 1 if fault == "flipped" else float("inf")
    record = publish(store, folder, kind="data", name="n", inputs={})
    out = fetch(store, load_record(store, record.address), into=tmp_path / "out")
    assert contents(out) == contents(folder)


def test_a_creation_whose_answer_is_lost_is_still_one_s_own(s3_bucket, proxy):
    store = open_store(f"s3://{s3_bucket}/x")
    store.list("")
    proxy.rate, proxy.faults, proxy.limit = 1.0, ("lost answer",), 1
    assert store.write("one", b"mine", if_absent=True) is True
    proxy.rate = 0.0
    assert store.write("one", b"other", if_absent=True) is False
    assert store.read("one") == b"mine"


def test_a_conflict_is_tried_again(s3_bucket, proxy):
    store = open_store(f"s3://{s3_bucket}/x")
    store.list("")
    conflicts = iter([(409, "ConditionalRequestConflict")] * 2)
    proxy.refuse = lambda method, path: next(conflicts, None) if method == "PUT" else None
    assert store.write("one", b"mine", if_absent=True) is True
    assert store.read("one") == b"mine"


@pytest.mark.timeout(300)
def test_a_server_that_is_gone_for_a_while_is_waited_for_and_the_upload_goes_on(
    s3_bucket, proxy, make_folder, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(retries, "SAID_AFTER_S", 0.5)
    folder = make_folder("in", {"large": 44 * MIB})
    store = open_store(f"s3://{s3_bucket}/x")
    outage = proxy.gone_at(lambda method, path: "partNumber=4" in path, seconds=OUTAGE_S)
    record = publish(store, folder, kind="data", name="n", inputs={})
    assert outage.ended.wait(10)
    assert contents(fetch(store, record, into=tmp_path / "out")) == contents(folder)
    said = capfd.readouterr().err
    assert "waiting for it" in said
    assert "answers again" in said


def test_a_held_run_outlasts_a_server_that_is_gone_while_a_stage_works_and_while_it_publishes(
    s3_bucket, proxy, tmp_path
):
    store = open_store(f"s3://{s3_bucket}/x")
    is_working = threading.Event()

    def renews(method: str, path: str) -> bool:
        return is_working.is_set() and method == "PUT" and "/leases/r/" in path

    outages = [
        proxy.gone_at(moment, seconds=OUTAGE_S / 2)
        for moment in (renews, lambda method, path: method == "PUT" and "/blobs/" in path)
    ]

    def build(folder: Path) -> dict[str, Detail]:
        is_working.set()
        assert outages[0].ended.wait(150)
        (folder / "a").write_bytes(b"made meanwhile")
        return {}

    with held(store, "r", announce=print, renew_s=0.2):
        record = run_stage(
            store, kind="knowledge", name="r", inputs={}, parents=(), build=build, announce=print
        )
    assert all(outage.ended.wait(10) for outage in outages)
    assert contents(fetch(store, record, into=tmp_path / "out")) == {"a": b"made meanwhile"}
    assert unlock(store, "r") == "nobody holds r"


def test_an_upload_that_ended_in_its_middle_sends_only_what_is_missing(
    s3_bucket, proxy, make_folder, tmp_path, monkeypatch
):
    folder = make_folder("in", {"large": 64 * MIB})
    monkeypatch.setenv("LORID_STORE_WAIT_S", "0.5")
    proxy.refuse = lambda method, path: (500, "InternalError") if "partNumber=8" in path else None
    with pytest.raises(ArtifactError, match="what is finished is kept"):
        publish(open_store(f"s3://{s3_bucket}/x"), folder, kind="data", name="n", inputs={})
    proxy.refuse, proxy.num_body_bytes = lambda method, path: None, 0
    store = open_store(f"s3://{s3_bucket}/x")
    record = publish(store, folder, kind="data", name="n", inputs={})
    assert proxy.num_body_bytes < 40 * MIB
    assert contents(fetch(store, record, into=tmp_path / "out")) == contents(folder)
    proxy.num_body_bytes = 0
    publish(store, folder, kind="data", name="again", inputs={})
    assert proxy.num_body_bytes < MIB


def test_a_download_that_ended_in_its_middle_goes_on(
    s3_bucket, proxy, make_folder, tmp_path, monkeypatch
):
    folder = make_folder("in", {"large": 64 * MIB})
    store = open_store(f"s3://{s3_bucket}/x")
    record = publish(store, folder, kind="data", name="n", inputs={})
    asked: list[str] = []

    def refuse_after_four(method: str, path: str) -> tuple[int, str] | None:
        asked.append(path)
        return (403, "AccessDenied") if len(asked) > 4 else None

    proxy.refuse = refuse_after_four
    with pytest.raises(ArtifactError, match="policy"):
        fetch(store, record, into=tmp_path / "out")
    assert not (tmp_path / "out/large").exists()
    asked.clear()
    proxy.refuse = lambda method, path: asked.append(path)
    assert contents(fetch(store, record, into=tmp_path / "out")) == contents(folder)
    assert len(asked) < 8


def one_line(caught: pytest.ExceptionInfo[ArtifactError], *words: str) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code == 2
    for word in words:
        assert word in text


def test_a_server_that_is_down_is_waited_for_also_by_who_never_reached_it(
    s3_bucket, proxy, monkeypatch, capfd
):
    lost = open_store(f"s3://{s3_bucket}/x")
    lost.write("a", b"1")
    monkeypatch.setattr(retries, "START_WAIT_S", 0.0)
    monkeypatch.setattr(retries, "SAID_AFTER_S", 0.2)
    with ThreadPoolExecutor(2) as pool:
        with proxy.gone():
            later = [
                pool.submit(lost.read, "a"),
                pool.submit(lambda: open_store(f"s3://{s3_bucket}/x").read("a")),
            ]
            said = ""
            while said.count("waiting for it, at most 180 s") < 2:
                assert not any(one.done() for one in later)
                said += capfd.readouterr().err
        assert [one.result() for one in later] == [b"1", b"1"]
    assert said.count("is AWS_ENDPOINT_URL right?") == 1
    assert capfd.readouterr().err.count("answers again") == 2
    monkeypatch.setenv("LORID_STORE_WAIT_S", "0.5")
    with proxy.gone(), pytest.raises(ArtifactError) as caught:
        open_store(f"s3://{s3_bucket}/x").read("a")
    one_line(caught, "Could not connect", "AWS_ENDPOINT_URL")


def test_an_address_that_cannot_be_one_is_not_waited_for(s3_bucket, monkeypatch):
    # Waiting as for a server that is down would outlast this test.
    monkeypatch.setattr(retries, "START_WAIT_S", 0.2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid:9000")
    with pytest.raises(ArtifactError) as caught:
        open_store(f"s3://{s3_bucket}/x").read("a")
    one_line(caught, "no-such-host", "AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(ArtifactError) as caught:
        open_store(f"s3://{s3_bucket}/x").read("a")
    one_line(caught, "AWS_ENDPOINT_URL", "has no scheme", "write http://localhost:9000")


def test_missing_bucket_wrong_keys_and_no_permission_are_explained(s3_bucket, monkeypatch):
    with pytest.raises(ArtifactError) as caught:
        open_store("s3://lorid-no-such-bucket/x").write("a", b"x")
    one_line(caught, "NoSuchBucket", "create the bucket")
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", '
        f'"Action": "s3:PutObject", "Resource": "arn:aws:s3:::{s3_bucket}/x/blobs/*"}}]}}'
    )
    boto3.client("s3").put_bucket_policy(Bucket=s3_bucket, Policy=policy)
    store = open_store(f"s3://{s3_bucket}/x")
    assert store.write("other", b"x")
    with pytest.raises(ArtifactError) as caught:
        store.write("blobs/a", b"x")
    one_line(caught, "AccessDenied", "check their policy")
    assert store.read("other") == b"x"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(ArtifactError) as caught:
        open_store(f"s3://{s3_bucket}/x").write("a", b"x")
    one_line(caught, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY")
    assert "wrong-secret" not in str(caught.value)


def test_a_clock_that_is_wrong_is_explained(s3_bucket, monkeypatch):
    import botocore.auth

    right = botocore.auth.get_current_datetime
    monkeypatch.setattr(
        botocore.auth,
        "get_current_datetime",
        lambda *args, **kwargs: right(*args, **kwargs) + timedelta(hours=1),
    )
    with pytest.raises(ArtifactError) as caught:
        open_store(f"s3://{s3_bucket}/x").write("a", b"x")
    one_line(caught, "RequestTimeTooSkewed", "clock")


def test_expired_credentials_are_explained_and_what_is_finished_stays(
    s3_bucket, proxy, make_folder, tmp_path
):
    # The answer is the proxy's: the test server gives no credentials that expire.
    store = open_store(f"s3://{s3_bucket}/x")
    first = publish(store, make_folder("one", {"a": 5}), kind="data", name="one", inputs={})
    proxy.refuse = lambda method, path: (400, "ExpiredToken") if method == "PUT" else None
    with pytest.raises(ArtifactError) as caught:
        publish(store, make_folder("two", {"a": 5}), kind="data", name="two", inputs={})
    one_line(caught, "ExpiredToken", "renew")
    assert fetch(store, first, into=tmp_path / "out")
    with pytest.raises(ArtifactIncomplete):
        load_record(store, f"data/two/{first.version}")


def test_a_full_disk_is_explained_and_the_file_does_not_appear(
    s3_bucket, make_folder, tmp_path, full_disk
):
    store = open_store(f"s3://{s3_bucket}/x")
    folder = make_folder("in", {"a": 1000, "large": 20 * MIB})
    record = publish(store, folder, kind="data", name="n", inputs={})
    with pytest.raises(ArtifactError) as caught:
        fetch(store, record, into=full_disk / "out")
    one_line(caught, "No space left on device", "free some space")
    assert not (full_disk / "out/large").exists()
    with pytest.raises(ArtifactError) as caught:
        publish(open_store(str(full_disk / "store")), folder, kind="data", name="n", inputs={})
    one_line(caught, "No space left on device", "free some space")


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 4 MB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root may mount; test_a_file_that_may_not_grow covers the rest")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "lorid", folder])
    if mounted.returncode:
        pytest.skip("no mounts here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_file_that_may_not_grow_is_explained(s3_bucket, make_folder, tmp_path):
    store = open_store(f"s3://{s3_bucket}/x")
    folder = make_folder("in", {"large": 20 * MIB})
    record = publish(store, folder, kind="data", name="n", inputs={})
    script = (
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, 2**22))\n"
        "import sys; from lorid.cli import main; main()"
    )
    command = ["runs", "fetch", record.address, "--store", store.uri, "-o", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "File too large; a limit of this process" in ended.stderr

"""The store beside the AWS CLI and s3fs, on one real S3 server (Ceph's gateway on loopback).

    python benchmarks/store.py [--peers FOLDER] [--runs 5]

Uploads and downloads many small files, some of 16 MiB and one large one. lorid publishes and
fetches an artifact: hashing, its record and the verification of every file are in its time. The
peers only move the files; a second ratio adds to their time what hashing the files takes, since
whoever wants to know that nothing was damaged must do that too. The AWS CLI runs as a command; what
`aws --version` takes is subtracted. s3fs and lorid have listed the bucket before the clock starts.
Runs are interleaved, the order changes by the run, medians count. Also record operations a second.
Peers live in virtual environments of their own below `--peers`, made where they are missing.
Writes `benchmarks/results/store-DATE.json`; fails when a file comes back wrong.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import boto3
from result_file import write_result

from lorid.artifacts.records import Record, fetch, publish
from lorid.artifacts.store import ArtifactStore, open_store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ceph_server import ACCESS_KEY, SECRET_KEY, ceph_gateway

MIB = 1024**2
LOADS = {
    "300 files of 20 kB": [20_000] * 300,
    "8 files of 16 MiB": [16 * MIB] * 8,
    "1 file of 256 MiB": [256 * MIB],
}
NUM_RECORDS = 300
S3FS = """
import json, sys, time, s3fs
fs = s3fs.S3FileSystem()
bucket, source, target = sys.argv[1:]
fs.ls(bucket)
started = time.perf_counter(); fs.put(source + "/", f"{bucket}/s3fs/", recursive=True)
put = time.perf_counter() - started
fs.invalidate_cache()
started = time.perf_counter(); fs.get(f"{bucket}/s3fs/", target, recursive=True)
print(json.dumps([put, time.perf_counter() - started]))
"""
Pair = tuple[float, float]


def peer_python(peers: Path, package: str) -> Path:
    """The Python of a peer's own environment, made where it is missing."""
    folder = peers / package
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def peer_version(python: Path, package: str) -> str:
    """The peer's version."""
    script = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [python, "-c", script], check=True, capture_output=True, text=True
    ).stdout.strip()


def timed(work: Callable[[], object]) -> float:
    """Seconds that the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def digests(folder: Path) -> dict[str, str]:
    """Hash of each file by its name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run_lorid(bucket: str, source: Path, target: Path) -> Pair:
    """Publish and fetch."""
    store = open_store(f"s3://{bucket}/lorid")
    store.list("data/")
    records: list[Record] = []
    inputs = {"run": uuid.uuid4().hex}
    put = timed(
        lambda: records.append(publish(store, source, kind="data", name="bench", inputs=inputs))
    )
    return put, timed(lambda: fetch(store, records[0], into=target))


def run_aws(python: Path, bucket: str, source: Path, target: Path) -> Pair:
    """`aws s3 cp --recursive`, there and back, less what the command takes to start."""
    aws = str(python.with_name("aws"))

    def call(*words: str) -> float:
        return timed(lambda: subprocess.run([aws, *words], check=True, stdout=subprocess.DEVNULL))

    start = min(call("--version") for _ in range(2))
    copy = ("s3", "cp", "--recursive", "--only-show-errors")
    put = call(*copy, str(source), f"s3://{bucket}/aws/") - start
    return put, call(*copy, f"s3://{bucket}/aws/", str(target)) - start


def run_s3fs(python: Path, bucket: str, source: Path, target: Path) -> Pair:
    """`put` and `get` of s3fs, timed within its process."""
    answer = subprocess.run(
        [python, "-c", S3FS, bucket, str(source), str(target)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    put, get = json.loads(answer.stdout)
    return put, get


def compare(load: list[int], *, runs: int, peers: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Seconds of each tool, interleaved; each run has new content and an emptied bucket."""
    tools: dict[str, Callable[[str, Path, Path], Pair]] = {
        "lorid": run_lorid,
        "awscli": lambda *at: run_aws(peers["awscli"], *at),
        "s3fs": lambda *at: run_s3fs(peers["s3fs"], *at),
    }
    seconds: dict[str, list[Pair]] = {name: [] for name in tools}
    hashing: list[float] = []
    bucket = f"bench-{uuid.uuid4().hex[:8]}"
    objects = cast(Any, boto3.resource("s3")).create_bucket(Bucket=bucket).objects
    for run in range(runs):
        names = list(tools)
        for name in names[run % 3 :] + names[: run % 3]:
            source, target = folder / "source", folder / "target"
            source.mkdir(parents=True)
            for number, size in enumerate(load):
                (source / f"f{number}").write_bytes(os.urandom(size))
            expected = digests(source)
            seconds[name].append(tools[name](bucket, source, target))
            found: list[dict[str, str]] = []
            hashing.append(timed(lambda to=target, into=found: into.append(digests(to))))
            if found != [expected]:
                raise SystemExit(f"{name} brought back other content")
            objects.delete()
            shutil.rmtree(source)
            shutil.rmtree(target)
    medians = {
        name: [statistics.median(pair[way] for pair in pairs) for way in (0, 1)]
        for name, pairs in seconds.items()
    }
    hash_s = statistics.median(hashing)
    return {
        "median_mb_per_s": {
            name: {
                way: round(sum(load) / 10**6 / taken, 1)
                for way, taken in zip(("upload", "download"), both, strict=True)
            }
            for name, both in medians.items()
        },
        "lorid_over_the_faster_peer": ratios(medians, extra_s=0.0),
        "lorid_over_the_faster_peer_that_hashes": ratios(medians, extra_s=hash_s),
        "median_seconds_of_hashing": round(hash_s, 3),
        "seconds": {name: [[round(x, 3) for x in pair] for pair in pairs]
                    for name, pairs in seconds.items()},
    }  # fmt: skip


def ratios(medians: dict[str, list[float]], *, extra_s: float) -> dict[str, float]:
    """The faster peer's seconds, and `extra_s`, over lorid's."""
    return {
        way: round(
            (min(both[i] for name, both in medians.items() if name != "lorid") + extra_s)
            / medians["lorid"][i],
            2,
        )
        for i, way in enumerate(("upload", "download"))
    }


@contextmanager
def served() -> Iterator[Path]:
    """A server of its own, since it holds everything in memory, and a folder for files."""
    with tempfile.TemporaryDirectory(prefix="lorid-bench-") as name:
        folder = Path(name)
        (folder / "ceph").mkdir()
        with ceph_gateway(folder / "ceph") as endpoint:
            os.environ |= {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            boto3.setup_default_session()
            warm_up()
            yield folder / "files"


def warm_up() -> None:
    """Both kinds of upload, once: the server makes its pools at the first of each."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="bench-warm-up")
    client.put_object(Bucket="bench-warm-up", Key="small", Body=b"x")
    client.upload_fileobj(io.BytesIO(bytes(17 * MIB)), "bench-warm-up", "large")


def record_rates(store: ArtifactStore) -> dict[str, float]:
    """Record operations a second from eight threads."""
    text = b"{}" * 1000
    keys = [f"records/{number:05d}.json" for number in range(NUM_RECORDS)]
    store.list("records/")
    with ThreadPoolExecutor(8) as pool:
        created = timed(
            lambda: list(pool.map(lambda key: store.write(key, text, if_absent=True), keys))
        )
        lost = timed(
            lambda: list(pool.map(lambda key: store.write(key, text, if_absent=True), keys))
        )
        read = timed(lambda: list(pool.map(store.read, keys)))
    return {
        "create_per_s": round(NUM_RECORDS / created),
        "refused_create_per_s": round(NUM_RECORDS / lost),
        "read_per_s": round(NUM_RECORDS / read),
    }


def main() -> None:
    """Start the server, measure, write."""
    parser = argparse.ArgumentParser(description="Measure the store beside its peers.")
    parser.add_argument("--peers", type=Path, default=Path(tempfile.gettempdir(), "lorid-peers"))
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    peers = {name: peer_python(args.peers, name) for name in ("awscli", "s3fs")}
    loads: dict[str, dict[str, Any]] = {}
    for title, load in LOADS.items():
        with served() as folder:
            loads[title] = compare(load, runs=args.runs, peers=peers, folder=folder)
            print(title, loads[title]["median_mb_per_s"], flush=True)
    with served():
        boto3.client("s3").create_bucket(Bucket="bench-records")
        rates = record_rates(open_store("s3://bench-records/x"))
    write_result(
        "store",
        {"transfers": loads, "records": rates},
        command=f"python benchmarks/store.py --runs {args.runs}",
        packages=("boto3",),
        versions={name: peer_version(python, name) for name, python in peers.items()},
    )
    for title, figures in loads.items():
        print(title, figures["lorid_over_the_faster_peer"])
        print("  peers hash too:", figures["lorid_over_the_faster_peer_that_hashes"])
    print(rates)


if __name__ == "__main__":
    main()

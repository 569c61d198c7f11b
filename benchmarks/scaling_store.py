"""A store of a hundred thousand artifacts: what listing, lineage and cleaning take.

Records are as long as those of a run of the demo; their contents are a blob each. They are written
straight into the store, since publishing is not what is measured. Each command runs in a process of
its own, whose peak memory, time and requests count; what it prints is checked.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lorid.artifacts.records import FileEntry, Record, fingerprint, version_of
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import AdapterEntry, BaseIdentity, TripleManifest, dump_manifest
from lorid.config import dump_config
from lorid.method.roles import Role
from lorid.presets import demo

NUM_VERSIONS = 50
"""Of each run's name: someone sweeps over settings."""
KINDS = ("data", "knowledge", *["adapter"] * 3, "triple", "evaluation", "report")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
COUNTED = """
import collections, sys
calls = collections.Counter()
def counted(*_, operation_name=None, **options):
    calls[options["model"].name] += 1
from lorid.artifacts import connection
plain = connection.connect
def connect():
    client = plain()
    client.meta.events.register("before-call.s3", counted)
    return client
connection.connect = connect
from lorid.artifacts import s3
s3.connect = connect
sys.argv = ["lorid", *sys.argv[1:]]
try:
    from lorid.cli import main
    main()
finally:
    import json, time
    # Not getrusage's: that counts what this process was before its program was loaded.
    (peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    figures = {"peak_mib": int(peak.split()[1]) / 1024,
               "cpu_s": time.process_time(), "requests": dict(calls)}
    print(json.dumps(figures), file=sys.stderr)
"""


def run_records(name: str, version: int) -> Iterator[tuple[Record, bytes]]:
    """The eight artifacts of a run, each with the content of its one file."""
    config = {"config": dump_config(demo()), "name": name, "version": version}
    parents: list[str] = []
    at = BEGAN + timedelta(minutes=version, seconds=int(name[3:]))
    for number, kind in enumerate(KINDS):
        role = list(Role)[number - 2] if kind == "adapter" else None
        inputs = {**config, "kind": kind, "role": role and str(role)}
        content = manifest(name, parents[2:5]) if kind == "triple" else json.dumps(inputs).encode()
        sha256 = hashlib.sha256(content).hexdigest()
        path = "triple.json" if kind == "triple" else "rows.jsonl"
        files = [FileEntry(path=path, size=len(content), sha256=sha256)]
        if kind == "triple":
            files += [
                FileEntry(path=f"adapters/{one}/adapter_model.safetensors", size=1, sha256="0" * 64)
                for one in Role
            ]
        results = {"num_problems": 9, "num_correct": 5, "num_errors": 0, "accuracy": 5 / 9,
                   "mean_rounds": 1.5, "grader_version": 1}  # fmt: skip
        record = Record(
            kind=kind,  # type: ignore[arg-type]
            name=f"{name}-{role}" if role else name,
            version=version_of(inputs),
            fingerprint=fingerprint(inputs),
            inputs=inputs,
            parents=tuple(parents[-1:] if kind != "triple" else parents[2:5]),
            files=tuple(files),
            details=results if kind == "evaluation" else {"num_train": 1600, "final_loss": 0.25},
            packages={"ray": "2.60.0", "torch": "2.9.1", "transformers": "5.16.1"},
            created_at=(at + timedelta(milliseconds=number)).isoformat(timespec="milliseconds"),
            created_by="somebody@somewhere",
            seconds=12.5,
            schema_version=2,
        )
        parents.append(record.address)
        yield record, content


def manifest(name: str, adapters: list[str]) -> bytes:
    """A triple's manifest."""
    config = demo()
    base = BaseIdentity(name="b", identity="folder:0", family="llama3", dtype="float32")
    entries = {
        role: AdapterEntry(address=address, weights_sha256="0" * 64, rank=8, alpha=16.0,
                           target_modules=("q_proj",))
        for role, address in zip(Role, adapters, strict=True)
    }  # fmt: skip
    return dump_manifest(
        TripleManifest(name=name, base=base, adapters=entries, sampling=config.sampling,
                       feedback=config.feedback, engine=config.engine, seed=1, grader_version=1)
    )  # fmt: skip


def fill(uri: str, *, num: int) -> int:
    """Write about `num` artifacts; returns how many there are."""
    store = open_store(uri)
    folder = None if "://" in uri else Path(uri)

    def write(key: str, content: bytes) -> None:
        if folder is None:
            store.write(key, content)
            return
        # Without the store's fsync: that would take an hour.
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)

    def write_run(run: tuple[str, int]) -> int:
        records = list(run_records(*run))
        for record, content in records:
            write(f"blobs/{record.files[0].sha256}", content)
            write(f"{record.address}/record.json", record.model_dump_json(indent=1).encode())
        return len(records)

    names = [f"run{number:05d}" for number in range(-(-num // len(KINDS) // NUM_VERSIONS))]
    runs = [(name, version) for name in names for version in range(NUM_VERSIONS)]
    with ThreadPoolExecutor(1 if folder else 16) as pool:
        return sum(pool.map(write_run, runs))


def command(*words: str) -> tuple[dict[str, Any], str]:
    """Figures and output of a lorid command in a process of its own."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"lorid {' '.join(words)}: {done.stderr[-2000:]}")
    figures = json.loads(done.stderr.strip().splitlines()[-1])
    figures["wall_s"] = round(time.monotonic() - began, 1)
    figures["cpu_s"], figures["peak_mib"] = round(figures["cpu_s"], 1), round(figures["peak_mib"])
    return figures, done.stdout


def measure(uri: str, *, num: int) -> dict[str, Any]:
    """Fill a store and run each command over it."""
    began = time.monotonic()
    there = fill(uri, num=num)
    found: dict[str, Any] = {"artifacts": there, "fill_s": round(time.monotonic() - began, 1)}
    num_triples = there // len(KINDS)
    checks: dict[tuple[str, ...], Any] = {
        ("runs", "list"): lambda out: Counter(
            line.split("/")[0] for line in out.splitlines() if "/" in line
        ).total() == there,
        ("runs", "list", "--json"): lambda out: len(json.loads(out)) == there,
        ("runs", "show", "run00000"): lambda out: out.count("run00000") >= 8 * NUM_VERSIONS,
        ("triple", "list", "--json"): lambda out: (
            [one["accuracy"] for one in json.loads(out)] == [5 / 9] * num_triples
        ),
        ("store", "gc"): lambda out: out.startswith("0 things"),
    }  # fmt: skip
    for words, is_right in checks.items():
        place = [uri] if words[0] == "store" else ["--store", uri]
        figures, output = command(*words, *place)
        assert is_right(output), (words, output[:500])
        found[" ".join(words)] = figures
        print(" ".join(words), figures, flush=True)
    return found

"""Requests to S3 that each stage makes for a problem, counted on a real S3 server.

    prepare, knowledge      the stages themselves, with the fake teacher of `scaling_teach`
    serving                 a replica that follows an alias: its start, and each look

Counted at boto3's client in every process that opens a store: each writes its counts to a file when
it ends a request.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import scaling_teach

from lorid.artifacts import connection, s3
from lorid.artifacts.aliases import current_entry, promote
from lorid.artifacts.records import fetch, list_records, publish
from lorid.artifacts.store import open_store
from lorid.distributed import knowledge
from lorid.distributed.cluster import prepare_environment
from lorid.distributed.pipeline import run_pipeline

KINDS = {"PutObject": "put", "UploadPart": "put", "CreateMultipartUpload": "put",
         "CompleteMultipartUpload": "put", "GetObject": "get", "HeadObject": "get",
         "ListObjectsV2": "list", "DeleteObject": "delete"}  # fmt: skip
COUNT_FILE = "LORID_BENCH_REQUESTS"
_connect = connection.connect


def count_here() -> None:
    """Count the requests of this process's clients; also what Ray's workers call at their start."""

    def counted(**options: Any) -> None:
        key = str(options["params"].get("url_path", ""))
        line = json.dumps([options["model"].name, key]) + "\n"
        with open(os.environ[COUNT_FILE], "a", encoding="utf-8") as file:
            file.write(line)

    def connect() -> Any:
        client = _connect()
        client.meta.events.register("before-call.s3", counted)
        return client

    s3.connect = connect


def taken() -> dict[str, int]:
    """Counts since the last call, by kind of request; S3's limits are by these."""
    file = Path(os.environ[COUNT_FILE])
    lines = file.read_text().splitlines() if file.exists() else []
    file.write_text("")
    return dict(Counter(KINDS.get(json.loads(line)[0], "other") for line in lines))


def serving(store_uri: str, folder: Path) -> dict[str, Any]:
    """A replica's start and its look at an alias, with a triple of five files."""
    store = open_store(store_uri)
    for number in range(5):
        (folder / f"file-{number}").write_bytes(os.urandom(1000))
    record = publish(store, folder, kind="triple", name="served", inputs={"seed": 1})
    published = taken()
    for _ in range(3):
        promote(store, "production", record.address)
    taken()
    current_entry(store, "production")
    looked = taken()
    fetch(store, record, into=folder / "fetched")
    fetched = taken()
    assert len(list((folder / "fetched").iterdir())) == 5
    list_records(store, kind="triple", name="served")
    return {
        "files": 5, "publish": published, "fetch": fetched, "alias_look": looked,
        "newest_of_a_name": taken(),
    }  # fmt: skip


def count_stages(folder: Path, *, store: str, num: int) -> dict[str, Any]:
    """Prepare and teach `num` problems in that store, and the same once more from the ledger."""
    import ray
    from ray import cloudpickle

    for module in (sys.modules[__name__], scaling_teach):
        cloudpickle.register_pickle_by_value(module)
    knowledge.TeacherWorker = scaling_teach.InstantWorker
    config = scaling_teach.make_config(folder, num=num, store=store, in_flight=64, workers=1)
    count_here()
    prepare_environment()
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    environment |= {name: os.environ[name] for name in os.environ if name.startswith("AWS_")}
    environment[COUNT_FILE] = os.environ[COUNT_FILE]
    ray.init(
        address="local", num_cpus=8, include_dashboard=False, object_store_memory=400 * 1024**2,
        runtime_env={"env_vars": environment, "worker_process_setup_hook": count_here},
    )  # fmt: skip
    found: dict[str, Any] = {"problems": num}
    for stage in ("prepare", "knowledge"):
        record = run_pipeline(config, stages=(stage,))[stage]
        found[stage] = {"seconds": record.seconds, "requests": taken()}
    assert record.details["num_kept"] == num
    again = config.model_copy(
        update={"teacher": config.teacher.model_copy(update={"retry_rejects": 1})}
    )
    record = run_pipeline(again, stages=("knowledge",))["knowledge"]
    assert record.details["num_reused"] == num
    found["again from the ledger"] = {"seconds": record.seconds, "requests": taken()}
    ray.shutdown()
    return found

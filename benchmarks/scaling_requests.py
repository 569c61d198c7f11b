"""Requests to S3 that a run makes for a problem, and a replica, counted on a real S3 server.

    count_stages    prepare; the ledger under two fake teachers, and merged; a published artifact
    serving         a replica that follows an alias: its start, and each look

Counted at boto3's client.
"""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from scaling_teach import (
    InstantTeacher,
    PromptTeacher,
    ask_here,
    group_and_join,
    make_config,
)

from lorid.artifacts import connection, s3
from lorid.artifacts.aliases import current_entry, promote
from lorid.artifacts.records import fetch, list_records, publish
from lorid.artifacts.store import open_store
from lorid.distributed.pipeline import run_pipeline
from lorid.teacher.ledger import merge_ledger

KINDS = {"PutObject": "put", "UploadPart": "put", "CreateMultipartUpload": "put",
         "CompleteMultipartUpload": "put", "GetObject": "get", "HeadObject": "get",
         "ListObjectsV2": "list", "DeleteObject": "delete"}  # fmt: skip
COUNT_FILE = "LORID_BENCH_REQUESTS"
_connect = connection.connect


def count_here() -> None:
    """Count the requests of this process's clients."""

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
    """Prepare `num` problems, ask for all of them, and once more; put the knowledge into the store.

    The teacher's part runs in this one process (`ask_here`), so that every request is counted.
    """
    count_here()
    config = make_config(folder, num=num, store=store, in_flight=64, workers=1)
    found: dict[str, Any] = {"problems": num, "in_flight": 64}
    run_pipeline(config, stages=("prepare",))
    found["prepare"] = taken()
    for name, teacher in (("half a second", PromptTeacher()), ("at once", InstantTeacher())):
        opened = open_store(f"{store}-{name.replace(' ', '-')}")
        asked = asyncio.run(ask_here(opened, num=num, in_flight=64, teacher=teacher))
        found[f"teacher that answers in {name}"] = {"wall_s": asked["all"]["wall_s"], **taken()}
        again = asyncio.run(ask_here(opened, num=num, in_flight=64, teacher=teacher))
        found[f"the same again, {name}"] = {"wall_s": again["all"]["wall_s"], **taken()}
        merge_ledger(opened, "here")
        found[f"its shards merged, {name}"] = taken()
    group_and_join(folder, num=num)
    made = publish(open_store(store), folder / "out", kind="knowledge", name="k", inputs={})
    found["publish the knowledge"] = {"files": len(made.files), **taken()}
    return found

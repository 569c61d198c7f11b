"""A process for test_crash.py: for each line it is sent it forks one that publishes until killed.

    {"store": URI, "folder": FOLDER, "seed": 1}  ->  the pid, when its first upload begins

Forking spares each of them the imports; nothing is open before a fork.
"""

import json
import os
import random
import sys
from pathlib import Path

import boto3  # noqa: F401 - loaded once, for all

from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store


def publish_on(store_uri: str, folder: Path, seed: int) -> None:
    """Publish artifacts of three files each, the largest of three parts in S3."""
    store = open_store(store_uri)
    store.list("leases/")
    source = random.Random(seed)
    largest = 17 * 1024**2 if store_uri.startswith("s3:") else 3 * 1024**2
    for number in range(1000):
        one = folder / str(number)
        one.mkdir(parents=True)
        for name, size in (("a", 10), ("b", 300_000), ("c", largest)):
            (one / name).write_bytes(source.randbytes(size))
        if number == 0:
            print(os.getpid(), flush=True)
        publish(store, one, kind="data", name="crash", inputs={"seed": seed, "number": number})


def main() -> None:
    """Fork for each line of the standard input."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            publish_on(order["store"], Path(order["folder"]), order["seed"])
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()

"""Where lorid stops growing: each part of docs/scaling.md, measured or simulated.

    python benchmarks/scaling.py stage --problems 100000 --workers 2   # the knowledge stage
    python benchmarks/scaling.py worker                                # a row in one process
    python benchmarks/scaling.py ledger --responses 1000000            # its parts at full size
    python benchmarks/scaling.py sources --problems 1000000
    python benchmarks/scaling.py desk                                  # grants of the desk's actor
    python benchmarks/scaling.py rounds                                # 1,000 virtual replicas
    python benchmarks/scaling.py serve                                 # proxy, ingress, students
    python benchmarks/scaling.py store --artifacts 100000 [--s3]       # lists, lineage, gc
    python benchmarks/scaling.py requests                              # S3 requests a problem

Teachers and engines that answer at once, or in virtual time, are fakes and say so by their names;
everything else is the real code. Each part asserts that what it did is right and writes
`benchmarks/results/scaling-PART-DATE.json`; `store` and `requests` start Ceph's gateway for S3.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from result_file import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ROUNDS = ((10, 1600), (100, 3200), (1000, 16000))
"""Replicas and questions; up to 16 questions a replica are at work."""
RANKED = (10, 100, 1000)
CALLERS = (1, 8, 64)


def stage(args: argparse.Namespace, folder: Path) -> Any:
    """The knowledge stage, with a teacher that answers at once."""
    from scaling_teach import run_stage

    return run_stage(
        folder, num=args.problems, store=None, in_flight=args.in_flight, workers=args.workers
    )


def worker(args: argparse.Namespace, folder: Path) -> Any:
    """The processor's time for a row of a worker, its desk and ledger in one process."""
    from scaling_teach import ask_here

    from lorid.artifacts.store import open_store

    sizes = (64, 1000, 4000)
    runs = [
        asyncio.run(ask_here(open_store(f"{folder}/{size}"), num=args.problems, in_flight=size))
        for size in sizes
    ]
    return {"problems": args.problems, "runs": runs}


def ledger(args: argparse.Namespace, folder: Path) -> Any:
    """A ledger of so many responses, and one of many shards."""
    from scaling_desk import large_ledger, many_shards

    few = many_shards(str(folder / "few"), num=max(250, args.responses // 640))
    return {"one_shard": large_ledger(folder, num=args.responses), "many_shards": few}


def sources(args: argparse.Namespace, folder: Path) -> Any:
    """Problems grouped by source, and their knowledge joined and written, without the teacher."""
    from scaling_teach import group_and_join

    return group_and_join(folder, num=args.problems)


def desk(args: argparse.Namespace, folder: Path) -> Any:
    """Grants a second of the desk's actor, by the number of its callers."""
    from scaling_desk import grants

    return {"runs": [grants(folder, callers=num, requests=args.requests) for num in CALLERS]}


def rounds(args: argparse.Namespace, folder: Path) -> Any:
    """Mutual feedback of many questions over virtual replicas, and what routing costs."""
    from scaling_rounds import ranking_cost, schedule

    runs = [
        schedule(replicas=num, at_once=min(16 * num, questions), questions=questions, seats=64)
        for num, questions in ROUNDS
    ]
    return {"runs": runs, "ranking": ranking_cost(RANKED)}


def serve(args: argparse.Namespace, folder: Path) -> Any:
    """CPU time of each process of an endpoint for a question, in two layouts."""
    from scaling_serve import endpoint

    return {"runs": [endpoint(layout, questions=args.requests // 10) for layout in args.layouts]}


def store(args: argparse.Namespace, folder: Path) -> Any:
    """Lists, lineage and cleaning of a store with many artifacts."""
    from scaling_store import measure

    if not args.s3:
        return measure(str(folder / "store"), num=args.artifacts)
    with bucket(folder) as uri:
        return measure(uri, num=args.artifacts)


def requests(args: argparse.Namespace, folder: Path) -> Any:
    """Requests to S3 of the stages and of a replica."""
    from scaling_requests import count_stages, serving

    os.environ["LORID_BENCH_REQUESTS"] = str(folder / "requests.jsonl")
    with bucket(folder) as uri:
        stages = count_stages(folder, store=f"{uri}/run", num=args.problems)
        (folder / "triple").mkdir()
        return {"stages": stages, "serving": serving(f"{uri}/served", folder / "triple")}


@contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """A store's address in a bucket of an S3 server of its own."""
    import boto3
    from ceph_server import ACCESS_KEY, SECRET_KEY, ceph_gateway

    (folder / "ceph").mkdir()
    with ceph_gateway(folder / "ceph") as endpoint:
        os.environ |= {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        boto3.client("s3").create_bucket(Bucket="scaling")
        yield "s3://scaling/lorid"


PARTS: dict[str, Callable[[argparse.Namespace, Path], Any]] = {
    one.__name__: one
    for one in (stage, worker, ledger, sources, desk, rounds, serve, store, requests)
}


def main() -> None:
    """Run one part and write what it found."""
    parser = argparse.ArgumentParser(description="Measure one part of docs/scaling.md.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--responses", type=int, default=100_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--layouts", nargs="+", default=["shared", "split"])
    parser.add_argument("--artifacts", type=int, default=4_000)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--tag", help="end of the name of the result; to be given last")
    args = parser.parse_args()
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="lorid-scaling-") as folder:
        found = PARTS[args.part](args, Path(folder))
    words = sys.argv[1 : sys.argv.index("--tag") if args.tag else None]
    write_result(
        "-".join(["scaling", args.part, *([args.tag] if args.tag else [])]),
        {"load_average": {"before": load_before, "after": os.getloadavg()}, **found},
        command=" ".join(["python benchmarks/scaling.py", *words]),
        packages=("ray",),
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

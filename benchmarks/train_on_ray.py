"""One role's training as lorid's stage does it on Ray, or as a plain loop.

Started by `benchmarks/train.py`:

    python benchmarks/train_on_ray.py ray '{"folder": ...}'      # train_roles on a cluster here
    python benchmarks/train_on_ray.py plain '{"folder": ...}'    # TrainingSession in this process

The same problems, settings and seed, and a clock at the end of every step of both: all that Ray
does between two steps counts. Prints one JSON line: the clock's times since this process started,
what came before the first of them, and the adapter's hash. Ray gives its workers niceness 15, here
0 as the plain loop has: other work on the machine should hold up neither more than the other.
"""

import hashlib
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from train_files import config_on_ray

STARTED = time.time()
WEIGHTS = "adapter_model.safetensors"


def clocked(train: Callable[[Any], None], *, out: Path) -> Callable[[Any], None]:
    """The worker's function, with the times of its start and of each step's end in a file."""

    def run(settings: Any) -> None:
        import time

        from lorid.distributed import training_worker
        from lorid.training.loop import TrainingSession

        began, starts, wall, cpu = time.time(), [], [], []

        class ClockedSession(TrainingSession):
            def train_step(self):  # no annotation: Ray sends this class without its module's names
                starts.append(time.time())
                found = super().train_step()
                wall.append(time.time())
                cpu.append(time.process_time())
                return found

        training_worker.TrainingSession = ClockedSession
        try:
            train(settings)
        finally:
            training_worker.TrainingSession = TrainingSession
            seen = {"began": began, "starts": starts, "wall": wall, "cpu": cpu}
            out.write_text(json.dumps(seen))

    return run


def run_ray(folder: Path, *, out: Path) -> tuple[Path, dict[str, float]]:
    """The training stage of one role; returns its adapter and when Ray was there."""
    from lorid.artifacts.triples import Source
    from lorid.distributed import training
    from lorid.distributed.cluster import connected
    from lorid.distributed.opening import open_run
    from lorid.distributed.training import RoleJob, train_roles
    from lorid.method.roles import Role

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  so Ray spells it
    config = open_run(config_on_ray(folder), announce=print).config
    adapter = out.with_suffix(".adapter")

    def publish(trained: Path, details: Mapping[str, Any]) -> None:
        shutil.move(trained / WEIGHTS, adapter)

    training.train_in_worker = clocked(training.train_in_worker, out=out)
    with connected():
        connected_at = time.time()
        train_roles(
            config,
            # A name of its own: a run of the same name would go on from its checkpoint.
            jobs=[RoleJob(role=Role.DEEP_REASONER, run_name=out.stem, publish=publish)],
            # Of both the address alone is looked up.
            knowledge=Source(
                address=(folder / "knowledge-address").read_text(), fingerprint="0" * 64
            ),
            data=Source(address="data/none/000000000000", fingerprint="0" * 64),
            announce=lambda line: print(line, flush=True),
        )
        return adapter, {"connected": connected_at - STARTED}


def run_plain(folder: Path, *, out: Path) -> tuple[Path, dict[str, float]]:
    """The same without Ray, or anything but the loop."""
    import torch

    from lorid.artifacts.enriched import read_enriched
    from lorid.distributed import training_worker
    from lorid.method.roles import Role
    from lorid.training.loop import ADAPTER_FOLDER

    torch.set_num_threads(1)
    config, saved = config_on_ray(folder), out.with_suffix("")

    def train(_: Any) -> None:
        problems = list(read_enriched(folder / "knowledge"))
        examples, _ = training_worker.encode_roles(config, problems, roles=[Role.DEEP_REASONER])
        session = training_worker.TrainingSession(
            config, examples=examples, device=torch.device("cpu")
        )
        while session.is_active:
            session.train_step()
        session.save(saved)

    clocked(train, out=out)(None)
    return saved / Role.DEEP_REASONER / ADAPTER_FOLDER / WEIGHTS, {}


@contextmanager
def _results(folder: Path) -> Iterator[Path]:
    out = folder / f"bench-{os.getpid()}-{time.time_ns()}.json"
    try:
        yield out
    finally:
        out.unlink(missing_ok=True)


def main() -> None:
    """Train, and print what the clock saw."""
    kind, folder = sys.argv[1], Path(json.loads(sys.argv[2])["folder"])
    with _results(folder) as out:
        adapter, moments = {"ray": run_ray, "plain": run_plain}[kind](folder, out=out)
        seen = json.loads(out.read_text())
    wall, cpu = seen["wall"], seen["cpu"]
    result = {
        "adapter_sha256": hashlib.sha256(adapter.read_bytes()).hexdigest(),
        "num_steps": len(wall),
        "steps_per_s": (len(wall) - 1) / (wall[-1] - wall[0]),
        "median_step_s": statistics.median(b - a for a, b in pairwise(wall)),
        # Of the seconds after the first step, how much is the loop's and not a step's.
        "share_between_steps": sum(
            b - a for a, b in zip(wall[:-1], seen["starts"][1:], strict=True)
        )
        / (wall[-1] - wall[0]),
        "worker_cpu_s_per_step": (cpu[-1] - cpu[0]) / (len(cpu) - 1),
        "step_ends_s": [round(moment - STARTED, 4) for moment in wall],
        "start_up_s": {
            **moments,
            "worker began": seen["began"] - STARTED,
            "first step done": wall[0] - STARTED,
        },
    }
    print("RESULT " + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

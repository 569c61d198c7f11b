"""Ranks that train together over gloo, as processes: run by test_ranks, which imports `session_of`.

    python rank_trainer.py OUT SIZE [SIZE ...]

For each size so many children are forked, before any backward pass, so that what is imported once
serves them all. Each writes what it saw and what came of it to OUT.
"""

import os
import sys
import traceback
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
from tiny import awaken, gradients, random_examples, tiny_config, tiny_session

from lorid.method.roles import Role
from lorid.training.batches import Example
from lorid.training.loop import TrainingSession
from lorid.training.ranks import CPU, Ranks

IR, KG, DR = Role
TIMINGS = ("seconds", "tokens_per_s", "supervised_tokens_per_s", "memory_bytes")


def examples() -> dict[Role, list[Example]]:
    """Different amounts, so that roles finish at different steps; one has a step without a loss."""
    silent = [Example(input_ids=[5, 6, 7], labels=[-100] * 3, problem_id=f"s{n}") for n in range(4)]
    return {
        IR: random_examples([11, 30, 7, 25, 16, 9, 21, 12], seed=1),
        KG: random_examples([14, 6], seed=2) + silent,
        DR: random_examples([28, 33, 17, 24, 31, 22, 40, 5, 5, 8], seed=3),
    }


def session_of(case: str, ranks: Ranks) -> TrainingSession:
    """Case "fused" has all roles, dropout and held-out problems; "narrow" fewer sequences a step
    than there may be ranks."""
    if case == "fused":
        config = tiny_config(
            dropout=0.2, sequences_per_step=5, num_epochs=2, validation_fraction=0.3,
            validate_every_steps=2, micro_batch_tokens=40, learning_rate=1e-3,
        )  # fmt: skip
        found = examples()
    else:
        config = tiny_config(sequences_per_step=2, num_epochs=3, learning_rate=1e-3)
        found = {KG: examples()[KG]}
    return tiny_session(config, found, ranks=ranks)


def result_of(case: str, ranks: Ranks) -> dict:
    """Gradients of a first step, then metrics and weights of a whole run."""
    first = session_of(case, ranks)
    awaken(first)
    found = gradients(first)
    session = session_of(case, ranks)
    while session.is_active:
        session.train_step()
    return {
        "gradients": found,
        "weights": {str(role): list(track.weights) for role, track in session.tracks.items()},
        "metrics": {
            str(role): [
                {key: value for key, value in asdict(one).items() if key not in TIMINGS}
                for one in track.metrics
            ]
            for role, track in session.tracks.items()
        },
    }


def take_part(out: Path, *, rank: int, size: int) -> None:
    """One rank: both cases, and a vote."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/group-{size}", rank=rank, world_size=size,
        timeout=timedelta(seconds=40),
    )  # fmt: skip
    ranks = Ranks.joined(CPU)
    results = {case: result_of(case, ranks) for case in ("fused", "narrow")}
    votes = [ranks.any(rank == 1, False), ranks.any(False, True)]
    session = session_of("narrow", ranks)
    session.save(out / f"saved-{size}")
    torch.distributed.barrier()
    before = torch.rand(3)
    session.restore(out / f"saved-{size}")
    results["random"] = [before, torch.rand(3)]
    torch.save({**results, "votes": votes}, out / f"rank-{size}-{rank}.pt")
    torch.distributed.destroy_process_group()


def main() -> None:
    out, sizes = Path(sys.argv[1]), [int(size) for size in sys.argv[2:]]
    torch.set_num_threads(1)
    children = []
    for size in sizes:
        for rank in range(size):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    take_part(out, rank=rank, size=size)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(child)
    if any([os.waitpid(child, 0)[1] for child in children]):
        raise SystemExit("a rank failed")


if __name__ == "__main__":
    main()

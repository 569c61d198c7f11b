"""A training that nobody interrupts, without Ray: what others are compared with; run as a process.

    python whole_training.py CONFIG OUT NUM_PROBLEMS

All roles together, by as many ranks as the config says: forked once everything is imported.
"""

import os
import sys
import traceback
from pathlib import Path

import torch
from training_cluster import problems

from lorid.config import RunConfig, parse_config
from lorid.distributed.training_worker import encode_roles
from lorid.method.roles import Role
from lorid.training.loop import TrainingSession
from lorid.training.ranks import CPU, Ranks


def train(config: RunConfig, out: Path, *, count: int, rank: int) -> None:
    size = config.training.num_workers
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}.group", rank=rank, world_size=size
    )
    ranks = Ranks.joined(CPU)
    examples, _ = encode_roles(config, problems(count), roles=list(Role))
    session = TrainingSession(config, examples=examples, device=CPU, ranks=ranks)
    while session.is_active:
        session.train_step()
    session.save(out)


def main() -> None:
    config, out, count = parse_config(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    children = []
    for rank in range(config.training.num_workers):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                train(config, out, count=int(count), rank=rank)
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

"""A process whose children train and are killed: run by test_resume, never imported.

    python mortal_trainer.py BASE OUT NUM_KILLS SEED

Each child goes on from the newest checkpoint in OUT and is killed (SIGKILL) at a random step, also
between a step and its checkpoint; the last one is left to finish. Children are forked before any
backward pass, so that what is imported once serves them all.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from tiny import random_examples, tiny_config

from lorid.method.roles import Role
from lorid.training.loop import TrainingSession
from lorid.training.pace import Pace

EVERY_STEPS = 3
LENGTHS = [5, 30, 17, 44, 2, 9, 12, 21]


def new_session(base: Path) -> TrainingSession:
    config = tiny_config(
        base, dropout=0.2, num_epochs=18, sequences_per_step=6, warmup_ratio=0.1,
        learning_rate=1e-3,
    )  # fmt: skip
    examples = {role: random_examples(LENGTHS, seed=n) for n, role in enumerate(list(Role)[:2])}
    return TrainingSession(config, examples=examples, device=torch.device("cpu"))


def train(base: Path, out: Path, steps: int) -> None:
    """Train to the end, a byte into `steps` for each step taken."""
    torch.manual_seed(time.time_ns() % 2**31)  # a resume must not need this process's own state
    session, pace = new_session(base), Pace(every_steps=EVERY_STEPS)
    if (out / "newest").exists():
        session.restore(out / "newest")
    while session.is_active:
        session.train_step()
        os.write(steps, b".")
        if pace.is_due(session.step) or not session.is_active:
            checkpoint(session, out)


def checkpoint(session: TrainingSession, out: Path) -> None:
    """A new folder, and then `newest` points to it, in one step."""
    place = out / f"checkpoint-{session.step}"
    shutil.rmtree(place, ignore_errors=True)
    session.save(place)
    link = out / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(place.name)
    link.replace(out / "newest")


def live(base: Path, out: Path, *, num_steps: int | None) -> None:
    """One child; killed once it has taken `num_steps`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            train(base, out, writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    taken = 0
    while num_steps is None or taken < num_steps:
        read = os.read(reader, 1)
        if not read:
            break
        taken += 1
    if num_steps is not None:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if num_steps is None and status:
        raise SystemExit(f"the last child ended with {status}")


def main() -> None:
    base, out, num_kills, seed = Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:5])
    torch.set_num_threads(1)
    rng = random.Random(seed)
    for name, kills in (("whole", 0), ("killed", num_kills)):
        (out / name).mkdir()
        for _ in range(kills):
            live(base, out / name, num_steps=rng.randint(1, 9))
        live(base, out / name, num_steps=None)


if __name__ == "__main__":
    main()

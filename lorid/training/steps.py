"""Which sequences each optimizer step takes; pure, so that a plan needs no torch.

    plan = plan_steps([e.num_tokens for e in examples], num_epochs=5, sequences_per_step=16, seed=1)

The order is one sequence of epochs per role, each shuffled by (seed, epoch), and a step is its own
part of it: a resumed run needs only the step number to go on with the same data.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from lorid.errors import NothingToLearn

T = TypeVar("T")


def num_steps(num_examples: int, *, num_epochs: float, sequences_per_step: int) -> int:
    """Optimizer steps of a run whose steps take so many sequences each."""
    return max(1, round(num_examples * num_epochs / sequences_per_step))


def plan_steps(
    lengths: Sequence[int],
    *,
    num_epochs: float,
    sequences_per_step: int,
    seed: int,
    tokens_per_step: int | None = None,
) -> list[list[int]]:
    """Which examples each step takes, as indices.

    A step takes `sequences_per_step`, or as many as fit in `tokens_per_step` (and at least one).
    The sequences of a last, incomplete step are left out when they are fewer than half of it, and
    otherwise filled up from one more epoch.
    """
    if tokens_per_step is not None:
        total = max(1, round(len(lengths) * num_epochs))
        order = list(_order(len(lengths), count=total, seed=seed))
        return filled(order, [lengths[index] for index in order], max_tokens=tokens_per_step)
    count = sequences_per_step * num_steps(
        len(lengths), num_epochs=num_epochs, sequences_per_step=sequences_per_step
    )
    order = list(_order(len(lengths), count=count, seed=seed))
    return [
        order[start : start + sequences_per_step]
        for start in range(0, len(order), sequences_per_step)
    ]


def held_out(problem_ids: Sequence[str], *, fraction: float, seed: int) -> set[str]:
    """The problems to validate on; one is on the same side whatever the role and the others are.

    Raises:
        NothingToLearn: there would be nothing to train on, or nothing to validate on.
    """
    if not fraction:
        return set()
    out = {found for found in problem_ids if is_held_out(found, fraction=fraction, seed=seed)}
    num_out = sum(found in out for found in problem_ids)
    if num_out in (0, len(problem_ids)):
        raise NothingToLearn(
            f"training.validation_fraction {fraction} holds out {num_out} of {len(problem_ids)} "
            "examples; change it, or add problems"
        )
    return out


def is_held_out(problem_id: str, *, fraction: float, seed: int) -> bool:
    """Whether this problem is one to validate on."""
    return _draw(f"{seed}/{problem_id}") < fraction


def filled(
    items: Sequence[T], lengths: Sequence[int], *, max_tokens: int, max_items: int | None = None
) -> list[list[T]]:
    """Groups in order of at most so many tokens (or one item) and items; none is divided."""
    groups: list[list[T]] = []
    num_tokens = 0
    for item, length in zip(items, lengths, strict=True):
        if not groups or num_tokens + length > max_tokens or len(groups[-1]) == max_items:
            groups.append([])
            num_tokens = 0
        groups[-1].append(item)
        num_tokens += length
    return groups


def _order(num_examples: int, *, count: int, seed: int) -> Iterator[int]:
    """The first `count` indices of epoch after epoch."""
    for start in range(0, count, num_examples):
        order = list(range(num_examples))
        random.Random(f"{seed}-{start // num_examples}").shuffle(order)
        yield from order[: count - start]


def _draw(key: str) -> float:
    """A number from 0 to 1 that follows from the key."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64

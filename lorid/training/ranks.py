"""The processes that train one adapter together, and what they add up.

    ranks = Ranks.joined(device)             # torch.distributed's group, or one process alone
    mine = shares(lengths, num=ranks.size)[ranks.rank]
    ... backward over mine ...
    ranks.sum_(gradients)

Every rank plans the same step, computes its share of the sequences, and adds its gradients to those
of the others; all then take the same optimizer step from the same numbers. So how many there are
changes the order of sums and nothing else. Nothing is decided from what one rank alone has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import distributed

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among them."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @classmethod
    def joined(cls, device: torch.device) -> "Ranks":
        """The group that torch.distributed was set up with; its backend works on `device`."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(device=device)
        return cls(rank=distributed.get_rank(), size=distributed.get_world_size(), device=device)

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each by its sum over the ranks, bit for bit the same on all; one message."""
        if self.size == 1 or not tensors:
            return
        bucket = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(bucket)
        for tensor, summed in zip(
            tensors, bucket.split([tensor.numel() for tensor in tensors]), strict=True
        ):
            tensor.copy_(summed.view_as(tensor))

    def any(self, *claims: bool) -> list[bool]:
        """For each claim, whether a rank makes it: the same answer on all."""
        if self.size == 1:
            return list(claims)
        votes = torch.tensor(claims, dtype=torch.float32, device=self.device)
        distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensor of every rank, in order; all have one shape."""
        if self.size == 1:
            return [tensor]
        here = tensor.to(self.device)
        found = [torch.empty_like(here) for _ in range(self.size)]
        distributed.all_gather(found, here)
        return [one.to(tensor.device) for one in found]


def shares(lengths: Sequence[int], *, num: int) -> list[list[int]]:
    """Which items each of `num` ranks takes, as indices in order: about as many tokens for each.

    The longest first, each to the rank that has least so far: no rank gets more than the mean and
    one item. It follows from the lengths alone.
    """
    taken: list[list[int]] = [[] for _ in range(num)]
    loads = [0] * num
    for index in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        rank = loads.index(min(loads))
        taken[rank].append(index)
        loads[rank] += lengths[index]
    return [sorted(indices) for indices in taken]

"""Which replica of a role's engine writes a text: for one question always the same one.

    RequestRouterConfig(request_router_class=QuestionRouter)

All rounds of a question begin with the same prompt, whose cached prefix lies in the engine that has
read it. Replicas are ranked for each question by a hash of both: questions spread, nobody keeps a
table, and a replica that comes or goes moves only the questions that it gets or had. When the
first of a question's ranking is full, the text goes to the next.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from lorid.engines.base import GenerationRequest

NUM_TRIED_ALONE = 8


class QuestionRouter(RequestRouter):
    """Serve's router with our ranking; calls without a question go wherever there is room.

    Without Serve's FIFO mixin, which would give the replica found to whatever waits longest.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The replicas in the order in which they are tried."""
        if pending_request is None:
            return [candidate_replicas]
        # All are in the ranking, so that there is nothing to try again without a pause.
        pending_request.routing_context.should_backoff = True
        request = next(iter(pending_request.args), None)
        if not isinstance(request, GenerationRequest):
            return [candidate_replicas]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        ranked = [by_id[one] for one in ranking(request.question, by_id)]
        alone = [[one] for one in ranked[:NUM_TRIED_ALONE]]
        # Where all of these are full, a thousand more need not be asked one after the other.
        return [*alone, ranked[NUM_TRIED_ALONE:]] if len(ranked) > NUM_TRIED_ALONE else alone


def ranking(question: str, replicas: Iterable[str]) -> list[str]:
    """Replicas, the question's own first (rendezvous hashing)."""
    known = tuple(replicas)
    weights = _mixed(_numbers(known) ^ np.uint64(_number(question)))
    return [known[index] for index in np.argsort(weights).tolist()]


@lru_cache(maxsize=64)
def _numbers(replicas: tuple[str, ...]) -> Any:
    return np.fromiter(map(_number, replicas), dtype=np.uint64, count=len(replicas))


def _number(text: str) -> int:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def _mixed(numbers: Any) -> Any:
    """SplitMix64's last steps: a bit more or less changes half of the others."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))

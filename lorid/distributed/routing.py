"""Which replica of a role's engine writes a text: for one question always the same one.

    RequestRouterConfig(request_router_class=QuestionRouter)

All rounds of a question begin with the same prompt, whose cached prefix lies in the engine that has
read it. Replicas are ranked for each question by a hash of both: questions spread, nobody keeps a
table, and a replica that comes or goes moves only the questions that it gets or had. When the
first of a question's ranking is full, the text goes to the next.
"""

import hashlib
from collections.abc import Iterable

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from lorid.engines.base import GenerationRequest


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
        return [[by_id[one]] for one in ranking(request.question, by_id)]


def ranking(question: str, replicas: Iterable[str]) -> list[str]:
    """Replicas, the question's own first (rendezvous hashing)."""
    return sorted(replicas, key=lambda one: hashlib.sha256(f"{one} {question}".encode()).digest())

"""An error that a lost worker causes in the others waits until Ray has seen the loss itself.

    with losses_first(ranks):
        ... steps, sums over ranks ...

When a node goes, the connections of the workers elsewhere break at once, while Ray needs a moment
to find the node dead. Ray Train takes what it sees first: a broken connection is charged to
`max_failures`, the end of a drained node is not. So a broken connection is not raised before Ray
has had the time to see a node's or a worker's death; it ends this process then, as a rule.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import distributed

from lorid.training.ranks import Ranks

# Ray finds a node dead that has missed five checks, three seconds apart.
PATIENCE_S = 30.0
# Ray Train looks at its workers every second or two.
SECONDS_TO_NOTICE = 5.0
SECONDS_BETWEEN_LOOKS = 0.5


def dead_nodes() -> set[str]:
    """The ids of the nodes that Ray has found dead."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


@contextmanager
def losses_first(
    ranks: Ranks,
    *,
    look: Callable[[], set[str]] = dead_nodes,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold back an error of the connections between ranks; any other is raised at once."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size > 1 and _is_of_connections(error):
            _wait_for_another(look(), look=look, sleep=sleep)
        raise


def _is_of_connections(error: RuntimeError) -> bool:
    """NCCL's errors have a type of their own; gloo's name its files."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error).lower()


def _wait_for_another(
    known: set[str], *, look: Callable[[], set[str]], sleep: Callable[[float], None]
) -> None:
    for _ in range(round(PATIENCE_S / SECONDS_BETWEEN_LOOKS)):
        sleep(SECONDS_BETWEEN_LOOKS)
        if look() - known:
            sleep(SECONDS_TO_NOTICE)
            return

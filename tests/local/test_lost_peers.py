"""What a lost node breaks in other workers is raised after Ray has seen the loss, not before."""

import pytest
from torch import distributed

from lorid.distributed.lost_peers import PATIENCE_S, SECONDS_TO_NOTICE, losses_first
from lorid.training.ranks import Ranks

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


class Cluster:
    """Ray's view of the nodes: one that was dead before, and one that is found dead late."""

    def __init__(self, *, found_after: float) -> None:
        self.found_after, self.waited = found_after, 0.0

    def look(self) -> set[str]:
        return {"old"} | ({"lost"} if self.waited >= self.found_after else set())

    def sleep(self, seconds: float) -> None:
        self.waited += seconds


def waited(error: Exception, *, size: int = 2, found_after: float = 7.0) -> float:
    cluster = Cluster(found_after=found_after)
    with (
        pytest.raises(type(error)) as raised,
        losses_first(Ranks(size=size), look=cluster.look, sleep=cluster.sleep),
    ):
        raise error
    assert raised.value is error
    return cluster.waited


@pytest.mark.parametrize("error", [RuntimeError(GLOO), distributed.DistBackendError("NCCL")])
def test_a_broken_connection_waits_until_the_node_is_found_dead(error):
    assert waited(error) == 7.0 + SECONDS_TO_NOTICE


def test_it_is_raised_in_the_end_where_no_node_dies():
    assert waited(RuntimeError(GLOO), found_after=float("inf")) == PATIENCE_S


@pytest.mark.parametrize(
    ("error", "size"),
    [(RuntimeError("shapes differ"), 2), (ValueError(GLOO), 2), (RuntimeError(GLOO), 1)],
)
def test_other_errors_are_raised_at_once(error, size):
    assert waited(error, size=size) == 0

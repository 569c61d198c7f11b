"""How many trainings run at once, on which part of a GPU, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorid.distributed.placement import Demand, Nodes, place
from lorid.errors import ResourceError


def demand(
    trainings: int = 3, workers: int = 1, cpus: float = 1, gpus: float = 1, **more
) -> Demand:
    return Demand(
        num_trainings=trainings, num_workers=workers, num_cpus=cpus, num_gpus=gpus, **more
    )


def node(cpus: float, gpus: float, count: int = 1) -> Nodes:
    return Nodes(num_cpus=cpus, num_gpus=gpus, count=count)


@pytest.mark.parametrize(
    ("asked", "now", "to_come", "at_once", "says"),
    [
        (demand(), [node(8, 1)] * 3, [], 3, "all at once"),
        (demand(), [node(8, 4)], [], 3, "all at once"),
        # CPUs bound it as well as GPUs, node by node.
        (demand(cpus=3), [node(8, 4)], [], 2, "2 at once"),
        (demand(), [node(8, 2)], [], 2, "2 at once"),
        (demand(), [node(8, 1)], [], 1, "one after the other, 8 CPUs, 1 GPU is all there is; "
                                        "training.mode=fused"),
        (demand(gpus=0), [node(2, 0)], [], 2, "2 at once"),
        (demand(gpus=0.5), [node(8, 1)], [], 2, "2 at once"),
        (demand(trainings=1), [node(8, 1)], [], 1, "at once, room for it"),
        # An autoscaler is asked for all three, though one fits already, or none yet.
        (demand(), [node(8, 1)], [node(8, 1, count=5)], 3, "room for 1 now; the autoscaler"),
        (demand(), [node(2, 0)], [node(8, 1, count=5)], 3, "the autoscaler is asked"),
        (demand(), [node(2, 0)], [node(8, 1, count=2)], 2, "2 at once"),
        # Nobody knows what may come: better to ask and to wait than to refuse.
        (demand(), [node(2, 0)], None, 3, "room for 0 now; the others wait for more nodes"),
        (demand(), [node(2, 1)], None, 3, "room for 1 now; the others wait for more nodes"),
        # Several workers a training: two trainings of two never share three places.
        (demand(trainings=2, workers=2, gpus=0), [node(3, 0)], [], 1, "one after the other"),
        (demand(trainings=2, workers=2, gpus=0), [node(1, 0)] * 4, [], 2, "x 2 workers"),
    ],
)  # fmt: skip
def test_what_fits_is_placed(asked, now, to_come, at_once, says):
    placement = place(asked, now=now, to_come=to_come)
    assert (placement.at_once, placement.num_gpus) == (at_once, asked.num_gpus)
    assert says in placement.why


@pytest.mark.parametrize(
    ("now", "share", "at_once", "num_gpus"),
    [
        ([node(8, 1)], 0.3, 3, 0.3333),
        ([node(8, 2)], 0.3, 3, 0.5),
        ([node(8, 3)], 0.3, 3, 1),
        ([node(8, 1)], 0.5, 1, 1),  # a third is less than is allowed
        ([node(8, 1)], None, 1, 1),
        ([node(2, 1)], 0.3, 1, 1),  # CPUs for two only
    ],
)
def test_gpus_are_shared_only_as_far_as_allowed(now, share, at_once, num_gpus):
    placement = place(demand(min_gpu_share=share), now=now, to_come=[])
    assert (placement.at_once, placement.num_gpus) == (at_once, num_gpus)


def test_workers_of_one_training_never_share_a_gpu():
    placement = place(demand(workers=2, min_gpu_share=0.1), now=[node(8, 2)], to_come=[])
    assert (placement.at_once, placement.num_gpus) == (1, 1)


@pytest.mark.parametrize(
    ("asked", "now", "to_come", "missing"),
    [
        (demand(), [node(8, 0)], [], "no node has or will have 1 GPU;"),
        (demand(gpus=2), [node(8, 1)] * 4, [node(8, 1, count=9)], "have 2 GPUs;"),
        (demand(cpus=16), [node(8, 4)], [], "have 16 CPUs;"),
        (demand(workers=4), [node(8, 1)], [], "room for 1 of the 4 at most;"),
    ],
)
def test_what_can_never_fit_is_refused_by_name(asked, now, to_come, missing):
    with pytest.raises(ResourceError) as caught:
        place(asked, now=now, to_come=to_come)
    assert missing in str(caught.value)
    assert "add nodes" in str(caught.value)


sizes = st.builds(
    node, st.sampled_from([0, 1, 2, 4.5, 8]), st.sampled_from([0, 1, 2, 8]), st.integers(1, 3)
)


@given(
    st.builds(
        demand,
        st.integers(1, 3),
        st.integers(1, 3),
        st.sampled_from([0, 0.5, 1, 2]),
        st.sampled_from([0, 0.25, 0.3333, 1, 2]),
        min_gpu_share=st.sampled_from([None, 0.2, 0.5]),
    ),
    st.lists(sizes, max_size=3),
    st.lists(sizes, max_size=3),
)
def test_what_is_placed_fits_in_the_nodes(asked, now, to_come):
    try:
        placement = place(asked, now=now, to_come=to_come)
    except ResourceError:
        assert asked.trainings_on(now) == asked.trainings_on(to_come) == 0
        return
    assert 1 <= placement.at_once <= asked.num_trainings

    def fits(nodes: list[Nodes]) -> bool:
        """Put the workers down one by one, as Ray does."""
        left = [[one.num_cpus, one.num_gpus] for one in nodes for _ in range(one.count)]
        for _ in range(placement.at_once * asked.num_workers):
            for free in left:
                if free[0] >= asked.num_cpus and free[1] + 1e-9 >= placement.num_gpus:
                    free[0] -= asked.num_cpus
                    free[1] -= placement.num_gpus
                    break
            else:
                return False
        return True

    assert fits(now) or fits(to_come)

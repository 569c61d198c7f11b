"""A checkpoint that came damaged is fetched again, and one that lies damaged is refused."""

from contextlib import contextmanager

import pytest
from ray.train import Checkpoint

from lorid.distributed.checkpoints import NUM_READS, opened, seal
from lorid.errors import ArtifactDrifted


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "state.pt").write_bytes(bytes(1000))
    (tmp_path / "metrics.jsonl").write_text("{}")
    seal(tmp_path)
    return tmp_path


class FakeTransfer:
    """A checkpoint whose file arrives damaged as often as is said."""

    path = "bucket/checkpoint"

    def __init__(self, folder, *, num_damaged: int) -> None:
        self.folder, self.num_damaged, self.num_reads = folder, num_damaged, 0

    @contextmanager
    def as_directory(self):
        self.num_reads += 1
        is_damaged = self.num_reads <= self.num_damaged
        (self.folder / "deep" / "state.pt").write_bytes(bytes([is_damaged]) + bytes(999))
        yield str(self.folder)


def test_what_was_sealed_is_opened(folder):
    with opened(Checkpoint.from_directory(folder)) as found:
        assert (found / "metrics.jsonl").read_text() == "{}"


def test_what_came_damaged_is_fetched_again(folder):
    transfer = FakeTransfer(folder, num_damaged=NUM_READS - 1)
    with opened(transfer) as found:
        assert (found / "deep" / "state.pt").read_bytes() == bytes(1000)
    assert transfer.num_reads == NUM_READS


@pytest.mark.parametrize("spoil", ["change", "remove", "unseal"])
def test_what_lies_damaged_is_refused(folder, spoil):
    state = folder / "deep" / "state.pt"
    if spoil == "change":
        state.write_bytes(bytes(999) + b"x")
    elif spoil == "remove":
        state.unlink()
    else:
        (folder / "checksums.json").unlink()
    with (
        pytest.raises(ArtifactDrifted, match="delete that folder"),
        opened(Checkpoint.from_directory(folder)),
    ):
        pytest.fail("it was opened")


def test_an_error_within_is_raised_as_it_is(folder):
    with pytest.raises(OSError, match="of the block"), opened(Checkpoint.from_directory(folder)):
        raise OSError("of the block")

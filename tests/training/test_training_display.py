"""What the driver sees of three trainings: a table of 100 columns, or lines, and each step once."""

import io

from rich.console import Console
from tiny import random_examples, tiny_config, tiny_session

from lorid.distributed.progress import StepBoard, StepPoster
from lorid.distributed.training_display import TrainingDisplay
from lorid.method.roles import Role

IR, KG, DR = Role


def row(role: Role, step: int, **changes) -> dict:
    return {
        "role": str(role), "step": step, "num_steps": 23400, "loss": 0.6123,
        "learning_rate": 4.93e-5, "grad_norm": 0.812, "tokens_per_s": 12345.6,
        "supervised_tokens_per_s": 8123.4, "memory_bytes": 11 * 2**30, "validation_loss": None,
        **changes,
    }  # fmt: skip


def shown(*, is_terminal: bool, validation_loss=None) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=100, no_color=True)
    with TrainingDisplay(console) as display:
        for step in (12001, 12002):
            display.show([row(role, step, validation_loss=validation_loss) for role in Role])
    return out.getvalue().splitlines()


def test_a_terminal_has_one_table_with_everything_in_100_columns():
    text = "\n".join(shown(is_terminal=True, validation_loss=0.7))
    table = text[text.rindex("role") :]
    for role in Role:
        (line,) = [line for line in table.splitlines() if line.startswith(str(role))]
        cells = ("12002/23400", "0.612", "0.700", "4.9e-05", "0.81", "12,346", "8,123", "11.0 GiB")
        assert line.split()[1:9] == " ".join(cells).split()[:8]
        assert all(cell in line for cell in cells)
        assert len(line.rstrip()) <= 100


def test_elsewhere_a_line_for_each_role():
    legend, *lines = shown(is_terminal=False)
    assert "DR deep_reasoner" in legend
    assert lines == [
        f"train: {role.short} 12001/23400  starting  loss 0.612  lr 4.9e-05  grad 0.81  "
        "12,346 (8,123) tok/s  11.0 GiB"
        for role in Role
    ]
    assert max(map(len, lines)) <= 100


class FakeHandle:
    """An actor's handle, called at once."""

    def __init__(self, board: StepBoard) -> None:
        self.post = self
        self.board = board

    def remote(self, rows) -> None:
        self.board.post(rows)


def test_a_worker_that_goes_on_sends_everything_and_the_board_keeps_each_step_once(tmp_path):
    config = tiny_config(num_epochs=5)
    board = StepBoard()
    first = tiny_session(config, random_examples([9] * 6))
    poster = StepPoster(FakeHandle(board), first.tracks)
    first.train_step()
    first.train_step()
    first.save(tmp_path)
    first.train_step()
    poster.post(at_once=True)
    rows, _ = board.read({})
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["memory_bytes"] > 50 * 2**20

    second = tiny_session(config, random_examples([9] * 6))
    second.restore(tmp_path)
    poster = StepPoster(FakeHandle(board), second.tracks)
    while second.is_active:
        second.train_step()
        poster.post()
    poster.post(at_once=True)
    assert [row["step"] for row in board.read({})[0]] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in board.read({str(IR): 3})[0]] == [4, 5]

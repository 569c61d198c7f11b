"""What a training worker does between Ray Train's edges, which are fakes here: report and board."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.train import Checkpoint

from lorid.artifacts.enriched import write_enriched
from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store
from lorid.config import RunConfig, parse_config
from lorid.demo.generator import generate
from lorid.distributed import checkpoints, training_worker
from lorid.method.roles import Role

IR, KG, DR = Role


class FakeBoard:
    """The actor's methods, called at once."""

    def __init__(self) -> None:
        self.posted: list[dict] = []
        self.wish_at: int | None = None
        self.given_up: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.post = SimpleNamespace(remote=self._post)
        self.note = SimpleNamespace(remote=self.notes.__setitem__)
        self.give_up = SimpleNamespace(remote=self.given_up.__setitem__)
        self.logs: dict[str, str] = {}
        self.began = SimpleNamespace(remote=self.logs.__setitem__)

    def _post(self, rows: list[dict]) -> int:
        """The reply: the driver asks to save once a step is there."""
        self.posted.extend(rows)
        return int(any(row["step"] == self.wish_at for row in self.posted))


class FakeRayTrain:
    """Keeps what is reported, and removes the folder as an upload in the background does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reports, self.resume_from = folder, [], None

    def report(self, summary: dict, *, checkpoint: Checkpoint, **options) -> None:
        assert options["delete_local_checkpoint_after_upload"]
        place = self.folder / f"report-{len(self.reports)}"
        with checkpoint.as_directory() as source:
            shutil.copytree(source, place)
        shutil.rmtree(checkpoint.path)
        self.reports.append((summary, place))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a worker over 20 problems; returns the reports and the board."""
    store = open_store(str(tmp_path / "store"))
    write_enriched(tmp_path / "knowledge", generate(split="train", count=20, seed=1))
    record = publish(store, tmp_path / "knowledge", kind="knowledge", name="w", inputs={})

    def call(
        config: RunConfig,
        roles: list[Role],
        *,
        resume_from: Path | None = None,
        wish_at: int | None = None,
    ):
        name = f"reports-{len(list(tmp_path.iterdir()))}"
        ray_train, board = FakeRayTrain(tmp_path / name), FakeBoard()
        board.wish_at = wish_at
        found = None if resume_from is None else Checkpoint.from_directory(resume_from)
        monkeypatch.setattr(checkpoints, "report", ray_train.report)
        monkeypatch.setattr(training_worker, "get_preemption_info", lambda: None)
        monkeypatch.setattr(training_worker, "get_checkpoint", lambda: found)
        monkeypatch.setattr(training_worker.ray, "get", lambda value, timeout=None: value)
        training_worker.train_in_worker(
            {
                "config": config.model_dump_json(),
                "roles": [str(role) for role in roles],
                "knowledge_address": record.address,
                "board": board,
            }
        )
        return ray_train.reports, board

    return call, str(tmp_path / "store")


def config_of(store: str, *overrides: str) -> RunConfig:
    settings = ["training.num_epochs=2", "training.checkpoint_every_steps=1", f"store={store}",
                "training.rank=8", "training.num_epochs_by_role={deep_reasoner: 4}",
                "training.dropout=0.1"]  # fmt: skip
    return parse_config("preset: demo", overrides=[*settings, *overrides])


def adapters(place: Path, roles) -> dict[Role, bytes]:
    return {
        role: (place / role / "adapter" / "adapter_model.safetensors").read_bytes()
        for role in roles
    }


def test_a_fused_worker_reports_all_roles_and_resumes_bit_for_bit(run):
    call, store = run
    reports, board = call(config_of(store), list(Role))
    assert [summary[DR]["step"] for summary, _ in reports] == [1, 2, 3, 4, 5]
    assert [summary[IR]["step"] for summary, _ in reports] == [1, 2, 2, 2, 2]
    posted = {role: [row["step"] for row in board.posted if row["role"] == role] for role in Role}
    last = reports[-1][0]
    assert posted == {role: list(range(1, last[role]["step"] + 1)) for role in Role}
    assert not board.given_up

    resumed, _ = call(config_of(store), list(Role), resume_from=reports[2][1])
    assert [summary[DR]["step"] for summary, _ in resumed] == [4, 5]
    assert adapters(resumed[-1][1], Role) == adapters(reports[-1][1], Role)

    # A worker that died after its last report has nothing left but to say so again.
    finished, _ = call(config_of(store), list(Role), resume_from=reports[-1][1])
    assert adapters(finished[-1][1], Role) == adapters(reports[-1][1], Role)


def test_a_worker_that_is_asked_to_save_does_so_once_and_goes_on(run, monkeypatch):
    monkeypatch.setattr("lorid.distributed.progress.SECONDS_BETWEEN_POSTS", 0.0)
    call, store = run
    config = config_of(store, "training.checkpoint_every_steps=1000")
    whole, _ = call(config, [DR])
    assert [summary[DR]["step"] for summary, _ in whole] == [5]
    asked, _ = call(config, [DR], wish_at=2)
    assert [summary[DR]["step"] for summary, _ in asked] == [2, 5]
    resumed, _ = call(config, [DR], resume_from=asked[0][1])
    assert adapters(resumed[-1][1], [DR]) == adapters(whole[-1][1], [DR])


def test_what_cannot_be_trained_is_said_and_not_raised(run):
    call, store = run
    reports, board = call(config_of(store, "training.max_sequence_tokens=16"), [IR, KG])
    assert not reports
    assert set(board.given_up) == {IR, KG}
    assert "raise training.max_sequence_tokens" in board.given_up[IR]

    config = config_of(store, "training.learning_rate=1.0e+38", "training.warmup_ratio=0")
    reports, board = call(config, [DR])
    assert set(board.given_up) == {DR}
    assert "training is not finite at step 2" in board.given_up[DR]
    assert "the last checkpoint is of step 1" in board.given_up[DR]
    assert len(reports) == 1


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
def test_sequences_over_the_cut_off_are_counted_and_shown(run, too_long):
    call, store = run
    cut_off = ("training.max_sequence_tokens=110", f"training.too_long={too_long}",
               "training.num_epochs=1", "training.checkpoint_every_steps=9")  # fmt: skip
    reports, board = call(config_of(store, *cut_off), [IR])
    told = reports[-1][0][IR]
    dropped, cut = told["num_dropped_too_long"], told["num_truncated"]
    assert (cut if too_long == "truncate" else dropped) > 0
    assert dropped + told["num_examples"] == 20
    assert board.notes[IR] == (
        f"of the sequences over the cut-off of 110 tokens, {dropped} dropped, {cut} cut in the "
        "prompt's middle"
    )

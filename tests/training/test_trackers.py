"""Trackers: every step once, also after a resume; one that fails is one warning."""

import struct
import threading

import pytest

from lorid.artifacts.store import open_store
from lorid.errors import ConfigError
from lorid.training import trackers
from lorid.training.trackers import TrackedRun, Trackers, check_trackers, without_secrets

ROLES = ("intuitive_reasoner", "deep_reasoner")


def row(role: str, step: int) -> dict:
    return {
        "role": role, "step": step, "num_steps": 9, "loss": 1 / step, "learning_rate": 1e-3,
        "grad_norm": 0.5, "num_tokens": 100, "supervised_tokens": 60, "tokens_per_s": 50.0,
        "supervised_tokens_per_s": 30.0, "seconds": 2.0, "memory_bytes": 2**30,
        "validation_loss": 0.25 if step == 4 else None,
    }  # fmt: skip


def rows(*steps: int) -> list[dict]:
    return [row(role, step) for step in steps for role in ROLES]


def runs_of(store) -> dict[str, TrackedRun]:
    return {
        role: TrackedRun(name=f"t-{role}-abc", group="t", settings={"rank": 8}, store=store)
        for role in ROLES
    }


def attempt(names, store, *batches) -> list[str]:
    """One driver's life; returns the warnings."""
    warnings: list[str] = []
    with Trackers(names, runs=runs_of(store), warn=warnings.append) as opened:
        for batch in batches:
            opened.log(batch)
    return warnings


def scalars(data: bytes) -> list[tuple[str, int, float]]:
    """What is in an event file: records of length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        event = Event.FromString(data[at + 12 : at + 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        at += 16 + length
    return found


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/x")
    return open_store(str(tmp_path / "store"))


def test_tensorboard_has_every_step_once_after_a_second_attempt(store):
    for batches in ([rows(1, 2), rows(3)], [rows(1, 2), rows(3, 4), rows(5)]):
        assert attempt(("tensorboard",), store, *batches) == []
    for role in ROLES:
        keys = store.list(f"tensorboard/t-{role}-abc/")
        found = [one for key in keys for one in scalars(store.read(key))]
        losses = [(step, value) for tag, step, value in found if tag == "train/loss"]
        assert losses == [(step, pytest.approx(1 / step)) for step in range(1, 6)]
        assert [one[1:] for one in found if one[0] == "validation/loss"] == [(4, 0.25)]
        assert {tag for tag, _, _ in found} == {
            "train/loss", "train/learning_rate", "train/grad_norm", "train/tokens_per_s",
            "train/supervised_tokens_per_s", "train/memory_gib", "validation/loss",
        }  # fmt: skip


def test_mlflow_has_every_step_once_after_a_second_attempt(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store(str(tmp_path / "store"))
    for batches in ([rows(1, 2), rows(3)], [rows(1, 2), rows(3, 4), rows(5)]):
        assert attempt(("mlflow",), store, *batches) == []
    client = mlflow.MlflowClient()
    number = client.get_experiment_by_name("lorid").experiment_id
    found = client.search_runs([number])
    assert sorted(one.info.run_name for one in found) == sorted(f"t-{role}-abc" for role in ROLES)
    for one in found:
        history = client.get_metric_history(one.info.run_id, "train/loss")
        assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5]
        assert one.data.params == {"rank": "8"}
        assert one.info.status == "FINISHED"


def test_wandb_offline_has_every_step(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    check_trackers(("wandb",))
    store = open_store(str(tmp_path / "store"))
    assert attempt(("wandb",), store, rows(1, 2), rows(3)) == []
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert sorted(file.name for file in files) == sorted(
        f"run-t-{role}-abc.wandb" for role in ROLES
    )
    assert all(file.stat().st_size for file in files)


def test_wandb_without_a_key_is_said_before_anything_starts(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="WANDB_API_KEY"):
        check_trackers(("wandb",))


def test_a_tracker_that_is_not_installed_is_said_before_anything_starts(monkeypatch):
    check_trackers(("tensorboard",))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="mlflow is not installed; pip install mlflow"):
        check_trackers(("mlflow",))


class FakeTracker:
    """Fails at a step, or waits for a server that does not answer."""

    def __init__(self, run: TrackedRun) -> None:
        self.name = run.name

    def log(self, rows) -> None:
        if any(row["step"] == 2 for row in rows):
            raise ConnectionError("no route to https://me:secret@host/api, key abc-123")

    def close(self) -> None:
        threading.Event().wait()


def test_a_tracker_that_fails_is_one_warning_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", FakeTracker)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc-123")
    store = open_store(str(tmp_path))
    warnings = attempt(("mlflow", "tensorboard"), store, rows(1), rows(2), rows(3))
    assert warnings == [
        "mlflow is left out: ConnectionError: no route to https://host/api, key ***; "
        "metrics.jsonl has every step"
    ]
    (key,) = store.list(f"tensorboard/t-{ROLES[0]}-abc/")
    steps = [step for tag, step, _ in scalars(store.read(key)) if tag == "train/loss"]
    assert steps == [1, 2, 3]
    assert without_secrets("s3://bucket/a@b") == "s3://bucket/a@b"


def test_a_tracker_that_does_not_answer_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "mlflow", FakeTracker)
    monkeypatch.setattr(trackers, "SECONDS_TO_CLOSE", 0.1)
    assert attempt(("mlflow",), open_store(str(tmp_path)), rows(1)) == [
        "mlflow does not answer; what it has may not be complete"
    ]

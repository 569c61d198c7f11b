"""The training step is right: its loss, its independence of batching, its resume."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import tiny_config

from lorid.config import RunConfig
from lorid.demo.generator import generate
from lorid.errors import AdapterMismatch, ConfigError, DataError, TrainingError
from lorid.method.roles import Role
from lorid.training.adapters import load_base, load_tokenizer
from lorid.training.batches import encode_examples
from lorid.training.checks import check_training
from lorid.training.loop import ADAPTER_FOLDER, TrainingSession
from lorid.training.merging import merge_adapter
from lorid.training.pretrain import new_student, train_tokenizer
from lorid.training.steps import plan_steps
from lorid.training.track import RoleTrack


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(seed=1)
    new_student(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(base: Path, **training) -> RunConfig:
    settings = {"rank": 8, "alpha": 16, "sequences_per_step": 8, "max_sequence_tokens": 512}
    return tiny_config(base, **{**settings, **training})


def session_of(config: RunConfig, role: Role = Role.INTUITIVE_REASONER) -> TrainingSession:
    examples, _ = encode_examples(
        generate(split="train", count=32, seed=1),
        tokenizer=load_tokenizer(config.student),
        family="tokenizer",
        role=role,
        max_tokens=config.training.max_sequence_tokens,
    )
    return TrainingSession(config, examples={role: examples}, device=torch.device("cpu"))


def track_of(session: TrainingSession) -> RoleTrack:
    (track,) = session.tracks.values()
    return track


def weights_of(session: TrainingSession) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in track_of(session).weights]


def test_loss_is_the_mean_over_supervised_tokens_of_the_plain_model(base):
    session = session_of(config_of(base))
    chosen = [placed.example for placed in track_of(session).upcoming()]
    total, count = 0.0, 0
    for example in chosen:
        ids = torch.tensor([example.input_ids])
        with torch.no_grad():
            log_probs = session.model(input_ids=ids).logits[0].log_softmax(-1)
        for position, label in enumerate(example.labels):
            if label != -100:
                total -= log_probs[position - 1, label].item()
                count += 1
    assert session.train_step()[0].loss == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize("role", list(Role))
def test_a_step_does_not_depend_on_the_micro_batch(base, role):
    whole, parts = (
        session_of(config_of(base, micro_batch_sequences=size), role) for size in (8, 2)
    )
    assert whole.train_step()[0].loss == pytest.approx(parts.train_step()[0].loss, abs=1e-5)
    for one, other in zip(weights_of(whole), weights_of(parts), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_only_the_adapter_learns(base):
    session = session_of(config_of(base))
    frozen = {
        name: weight.clone()
        for name, weight in session.model.named_parameters()
        if not weight.requires_grad
    }
    before = weights_of(session)
    first = session.train_step()[0].loss
    for _ in range(3):
        last = session.train_step()[0].loss
    assert last < first
    assert any(not torch.equal(a, b) for a, b in zip(before, weights_of(session), strict=True))
    for name, weight in session.model.named_parameters():
        if name in frozen:
            assert torch.equal(weight, frozen[name])


def test_a_resumed_session_ends_bit_for_bit_like_an_uninterrupted_one(base, tmp_path):
    config = config_of(base, dropout=0.1)
    uninterrupted = session_of(config)
    for _ in range(4):
        uninterrupted.train_step()
    first = session_of(config)
    for _ in range(2):
        first.train_step()
    first.save(tmp_path)
    torch.manual_seed(999)
    resumed = session_of(config)
    resumed.restore(tmp_path)
    for _ in range(2):
        resumed.train_step()
    for one, other in zip(weights_of(uninterrupted), weights_of(resumed), strict=True):
        assert torch.equal(one, other)
    assert [m.step for m in track_of(resumed).metrics] == [1, 2, 3, 4]
    assert [m.loss for m in track_of(resumed).metrics] == [
        m.loss for m in track_of(uninterrupted).metrics
    ]


def test_the_saved_adapter_gives_the_same_logits_in_peft(base, tmp_path):
    session = session_of(config_of(base))
    session.train_step()
    session.save(tmp_path)
    assert load_file(
        tmp_path / Role.INTUITIVE_REASONER / ADAPTER_FOLDER / "adapter_model.safetensors"
    )
    loaded = PeftModel.from_pretrained(
        load_base(session.config.student), str(tmp_path / Role.INTUITIVE_REASONER / ADAPTER_FOLDER)
    )
    ids = torch.tensor([track_of(session).examples[0].input_ids])
    with torch.no_grad():
        assert torch.allclose(
            loaded(input_ids=ids).logits, session.model(input_ids=ids).logits, atol=1e-5
        )


def test_merged_weights_answer_like_the_adapter(base, tmp_path):
    session = session_of(config_of(base))
    session.train_step()
    session.train_step()
    session.save(tmp_path)
    adapter = tmp_path / Role.INTUITIVE_REASONER / ADAPTER_FOLDER
    merge_adapter(session.config.student, adapter=adapter, out=tmp_path / "merged")
    merged = session.config.student.model_copy(update={"path": str(tmp_path / "merged")})
    ids = torch.tensor([track_of(session).examples[0].input_ids])
    with torch.no_grad():
        found = load_base(merged)(input_ids=ids).logits
        assert torch.allclose(found, session.model(input_ids=ids).logits, atol=1e-4)
        assert not torch.allclose(
            found, load_base(session.config.student)(input_ids=ids).logits, atol=1e-3
        )
    assert load_tokenizer(merged).eos_token == "<|end|>"
    with pytest.raises(DataError, match="not an empty folder"):
        merge_adapter(session.config.student, adapter=adapter, out=tmp_path / "merged")


@pytest.mark.parametrize(
    ("what", "words"),
    [("idle", "answers like the base"), ("rank", "has shape"), ("base", "needs"),
     ("targets", "names o_proj")],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_and_leaves_nothing(base, tmp_path, what, words):
    session = session_of(config_of(base))
    if what != "idle":
        session.train_step()
    session.save(tmp_path)
    adapter = tmp_path / Role.INTUITIVE_REASONER / ADAPTER_FOLDER
    settings = json.loads((adapter / "adapter_config.json").read_text())
    changes = {"rank": {"r": 4}, "targets": {"target_modules": ["o_proj"]}}.get(what, {})
    (adapter / "adapter_config.json").write_text(json.dumps(settings | changes))
    if what == "base":
        weights = load_file(adapter / "adapter_model.safetensors")
        wider = {name: torch.cat([one, one], dim=1) for name, one in weights.items()}
        save_file(wider, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterMismatch, match=words):
        merge_adapter(session.config.student, adapter=adapter, out=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"target_modules": ("q_proj", "nope")}, "no linear layer 'nope'"),
        ({"rank": 500}, "exceeds the width 192 of 'q_proj'"),
    ],
)
def test_an_adapter_that_cannot_fit_is_refused(base, training, words):
    config = config_of(base, **training)
    with pytest.raises(AdapterMismatch, match=words):
        check_training(config)


def test_a_tokenizer_without_an_end_is_found_before_training(base, tmp_path):
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    tokenizer = load_tokenizer(config_of(base).student)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no EOS token"):
        check_training(config_of(tmp_path))


def test_too_long_examples_are_dropped_or_cut_and_counted(base):
    tokenizer = load_tokenizer(config_of(base).student)
    problems = generate(split="train", count=20, seed=1)

    def encode(max_tokens: int, **more):
        return encode_examples(
            problems,
            tokenizer=tokenizer,
            family="tokenizer",
            role=Role.INTUITIVE_REASONER,
            max_tokens=max_tokens,
            **more,
        )

    whole, _ = encode(512)
    examples, counts = encode(110)
    assert 0 < counts.num_dropped < 20
    assert len(examples) + counts.num_dropped == 20
    assert counts.num_truncated == 0

    cut, counts = encode(110, too_long="truncate")
    assert counts.num_truncated > 0
    assert len(cut) + counts.num_dropped == 20
    originals = {example.problem_id: example for example in whole}
    for example in cut:
        original = originals[example.problem_id]
        assert example.num_tokens == min(110, original.num_tokens)
        assert example.num_supervised == original.num_supervised
        # The prompt loses its middle: both ends are as they were.
        assert example.input_ids[:4] == original.input_ids[:4]
        assert (
            example.input_ids[-example.num_supervised - 4 :]
            == (original.input_ids[-original.num_supervised - 4 :])
        )
    with pytest.raises(TrainingError, match="max_sequence_tokens"):
        encode(16)


def test_every_epoch_takes_each_example_once():
    plan = plan_steps([5] * 10, num_epochs=2, sequences_per_step=4, seed=3)
    taken = [index for step in plan for index in step]
    assert len(plan) == 5
    assert sorted(taken[:10]) == list(range(10))
    assert sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), epochs=st.integers(1, 3))
def test_packed_steps_hold_every_example_once_an_epoch_within_the_budget(lengths, epochs):
    plan = plan_steps(lengths, num_epochs=epochs, sequences_per_step=4, seed=3, tokens_per_step=50)
    taken = [index for step in plan for index in step]
    assert sorted(taken) == sorted(list(range(len(lengths))) * epochs)
    assert all(sum(lengths[index] for index in step) <= 50 for step in plan)
    # No step could have taken the next one's first sequence too.
    for step, following in itertools.pairwise(plan):
        assert sum(lengths[index] for index in [*step, following[0]]) > 50

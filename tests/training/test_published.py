"""Adapters of the published form: rank 512, alpha 1024, q and v, on Llama's and Mistral's shapes.

The base is as narrow as that rank allows: 512 wide, and 1024 with 512 for keys and values.
"""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny import KINDS, SHAPE, random_examples, tiny_config

from lorid.errors import AdapterMismatch
from lorid.method.roles import Role
from lorid.training.adapters import check_start, load_base
from lorid.training.loop import ADAPTER_FOLDER, TrainingSession

WIDE = {
    "llama": {"hidden_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4},
    "mistral": {"hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 4},
}
ROLE = Role.DEEP_REASONER
PUBLISHED = {"rank": 512, "alpha": 1024, "target_modules": ("q_proj", "v_proj")}


@pytest.fixture(scope="module", params=WIDE)
def published(request, tmp_path_factory):
    """A base, and an adapter on it written by PEFT alone; returns their folders."""
    folder = tmp_path_factory.mktemp(request.param)
    config_class, model_class, _ = KINDS[request.param]
    torch.manual_seed(0)
    base = model_class(config_class(**{**SHAPE, **WIDE[request.param]}))
    base.save_pretrained(folder / "base")
    settings = LoraConfig(
        r=512, lora_alpha=1024, lora_dropout=0.1, target_modules=["q_proj", "v_proj"],
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(base, settings).save_pretrained(folder / "adapter")
    return folder


def session_of(folder, **training) -> TrainingSession:
    config = tiny_config(
        folder / "base",
        **{
            **PUBLISHED, "start_from": {ROLE: str(folder / "adapter")}, "learning_rate": 1e-4,
            **training,
        },
    )  # fmt: skip
    examples = {ROLE: random_examples([12, 30, 21, 9, 17, 26])}
    return TrainingSession(config, examples=examples, device=torch.device("cpu"))


def logits_of(folder, adapter) -> torch.Tensor:
    model = PeftModel.from_pretrained(load_base(tiny_config(folder / "base").student), str(adapter))
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 20).unsqueeze(0)).logits


def test_training_goes_on_from_a_published_adapter(published, tmp_path):
    session = session_of(published, num_epochs=3)
    with torch.no_grad():
        started = session.model(input_ids=torch.arange(3, 20).unsqueeze(0)).logits
    assert torch.allclose(started, logits_of(published, published / "adapter"), atol=1e-4)

    losses = []
    while session.is_active:
        losses.append(session.train_step()[0].loss)
    assert losses[-1] < losses[0]
    session.save(tmp_path)

    saved = tmp_path / ROLE / ADAPTER_FOLDER
    before, after = (
        load_file(folder / "adapter_model.safetensors") for folder in (published / "adapter", saved)
    )
    assert {name: weight.shape for name, weight in before.items()} == {
        name: weight.shape for name, weight in after.items()
    }
    with torch.no_grad():
        ended = session.model.eval()(input_ids=torch.arange(3, 20).unsqueeze(0)).logits
    assert torch.allclose(ended, logits_of(published, saved), atol=1e-4)
    assert not torch.allclose(ended, started, atol=1e-3)


def test_settings_that_differ_are_named(published):
    config = tiny_config(published / "base", rank=64, target_modules=("q_proj",), alpha=1024)
    with pytest.raises(AdapterMismatch, match=r"training\.rank=512, .*target_modules=\['q_proj'"):
        check_start(published / "adapter", config.training, role=ROLE)
    with pytest.raises(AdapterMismatch, match=r"nothing: cannot read adapter_config"):
        check_start(published / "nothing", config.training, role=ROLE)


def test_an_adapter_of_another_base_is_refused(published, tmp_path):
    config_class, model_class, _ = KINDS["llama"]
    other = {"hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 8}
    model_class(config_class(**{**SHAPE, **other})).save_pretrained(tmp_path / "base")
    (tmp_path / "adapter").symlink_to(published / "adapter")
    with pytest.raises(AdapterMismatch, match=r"made for another base than this: .* of \("):
        session_of(tmp_path)

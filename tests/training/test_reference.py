"""The loss curve of PEFT with transformers' own Trainer, padded and accumulated, in one order."""

import pytest
import torch
from peft import get_peft_model
from tiny import KINDS, random_examples, tiny_base, tiny_config, tiny_session
from transformers import Trainer, TrainingArguments

from lorid.training.adapters import lora_config

LENGTHS = [5, 30, 17, 44, 2, 9, 12, 26, 21, 8, 33, 14]


class InOrder(Trainer):
    """Takes the rows as they come; its default shuffles."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)


def padded(rows: list[dict]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)

    def fill(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    return {
        "input_ids": fill("input_ids", 0),
        "labels": fill("labels", -100),
        "attention_mask": fill("attention_mask", 0),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_curve_is_that_of_peft_and_trainer(kind, tmp_path):
    config = tiny_config(num_epochs=2, sequences_per_step=4, warmup_ratio=0.2)
    session = tiny_session(config, random_examples(LENGTHS), kind=kind)
    (track,) = session.tracks.values()
    order = [track.examples[index] for step in track.plan for index in step]
    base = tiny_base(kind)
    torch.manual_seed(config.seed)
    trainer = InOrder(
        model=get_peft_model(base, lora_config(config.training)),
        train_dataset=[
            {
                "input_ids": example.input_ids,
                "labels": example.labels,
                "attention_mask": [1] * example.num_tokens,
            }
            for example in order
        ],
        data_collator=padded,
        args=TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2,
            num_train_epochs=1, learning_rate=config.training.learning_rate, warmup_steps=2,
            lr_scheduler_type="cosine", weight_decay=0.0, max_grad_norm=1.0, logging_steps=1,
            report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.train()
    expected = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    losses = []
    while session.is_active:
        losses.append(session.train_step()[0].loss)
    assert len(losses) == 6
    assert losses == pytest.approx(expected, abs=1e-4)
    assert abs(losses[0] - losses[-1]) > 1e-2

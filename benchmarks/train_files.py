"""What the contenders of `benchmarks/train.py` train on: untrained bases, sequences, knowledge.

made = make_files(folder, num_sequences=192)

base/          a Llama of 4.5M parameters, and a tokenizer for TRL's sake
ROLE.json      each role's sequences in the order of training
demo-base/     the same shape with the demo's tokenizer, for the runs on Ray
store/         the demo's problems as a knowledge artifact, which those runs read
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

ROLES = ("intuitive_reasoner", "knowledge_generator", "deep_reasoner")
# Mean lengths of the roles' sequences on GSM8K are near these; spread as in a log-normal.
MEAN_TOKENS = {"intuitive_reasoner": 190, "knowledge_generator": 150, "deep_reasoner": 270}
SIGMA = 0.35
VOCAB_SIZE = 2048
NUM_PROBLEMS_ON_RAY, NUM_STEPS_ON_RAY = 320, 16
RANK, ALPHA, LEARNING_RATE, SEED = 64, 128, 1e-3, 1


def make_files(folder: Path, *, num_sequences: int) -> dict[str, Any]:
    """Write them all, and say what the result should tell of them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    num_parameters = _save_base(folder / "base", vocab_size=VOCAB_SIZE)
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
    )  # fmt: skip
    tokenizer.save_pretrained(folder / "base")
    waste = {}
    for number, role in enumerate(ROLES):
        rng = random.Random(number)
        rows = [_row(rng, MEAN_TOKENS[role]) for _ in range(num_sequences)]
        waste[role] = _padding_ratio([len(row["input_ids"]) for row in rows])
        (folder / f"{role}.json").write_text(json.dumps(rows))
    _write_knowledge(folder)
    return {"num_parameters": num_parameters, "padded_over_real_tokens": waste}


def config_on_ray(folder: Path) -> Any:
    """lorid's config of the runs on Ray and of the plain loop beside them."""
    from lorid.config import ModelConfig
    from lorid.presets import demo

    config = demo()
    training = config.training.model_copy(
        update={
            "rank": RANK, "alpha": float(ALPHA), "target_modules": ("q_proj", "v_proj"),
            "learning_rate": LEARNING_RATE, "sequences_per_step": 16, "trackers": (),
            "num_epochs": 16 * NUM_STEPS_ON_RAY / NUM_PROBLEMS_ON_RAY, "num_epochs_by_role": {},
            "checkpoint_every_steps": 10_000,
        }
    )  # fmt: skip
    base = ModelConfig(
        path=str(folder / "demo-base"), dtype="float32", family=config.student.family
    )
    return config.model_copy(
        update={
            "name": "bench", "seed": SEED, "store": str(folder / "store"), "student": base,
            "training": training,
        }
    )  # fmt: skip


def _save_base(folder: Path, *, vocab_size: int) -> int:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size, hidden_size=256, intermediate_size=688, num_hidden_layers=5,
            num_attention_heads=4, max_position_embeddings=1024, tie_word_embeddings=True,
        )
    )  # fmt: skip
    base.save_pretrained(folder)
    return base.num_parameters()


def _write_knowledge(folder: Path) -> None:
    """The demo's problems in a store of their own, and a base that reads their tokens."""
    from lorid.artifacts.enriched import write_enriched
    from lorid.artifacts.records import publish
    from lorid.artifacts.store import open_store
    from lorid.demo.generator import generate
    from lorid.presets import demo

    student = Path(demo().student.path)
    _save_base(folder / "demo-base", vocab_size=1024)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(student / name, folder / "demo-base" / name)
    write_enriched(
        folder / "knowledge", list(generate(split="train", count=NUM_PROBLEMS_ON_RAY, seed=SEED))
    )
    record = publish(
        open_store(str(folder / "store")), folder / "knowledge", kind="knowledge", name="bench",
        inputs={"seed": SEED},
    )  # fmt: skip
    (folder / "knowledge-address").write_text(record.address)


def _row(rng: random.Random, mean: int) -> dict[str, list[int]]:
    length = min(1000, max(24, round(mean * rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))))
    # Each token follows from the last two, so that there is something to learn.
    ids = [rng.randrange(3, 300), rng.randrange(3, 300)]
    while len(ids) < length:
        ids.append(
            3 + (ids[-1] * 7 + ids[-2]) % 300 if rng.random() < 0.9 else rng.randrange(3, 300)
        )
    return {"input_ids": ids, "labels": [-100] * (length * 2 // 5) + ids[length * 2 // 5 :]}


def _padding_ratio(lengths: list[int], per_batch: int = 4) -> float:
    groups = [lengths[i : i + per_batch] for i in range(0, len(lengths), per_batch)]
    return round(sum(max(g) * len(g) for g in groups) / sum(lengths), 3)

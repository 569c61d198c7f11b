"""Makes the demo's two models from nothing: the base student, then the teacher from the base.

    python -m lorid.training.pretrain --out lorid/demo/models

The base is a stock Qwen2 architecture pre-trained on `lorid.demo.corpus`; the teacher is the base
with all of its weights tuned to read question and rationale and write the JSON list of rules.
Both are saved as float16 safetensors with their tokenizer and a model card. Not meant for models
of a useful size.
"""

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from lorid.demo.corpus import (
    base_documents,
    chat_ids,
    draw_whole,
    teacher_chat,
    tokenizer_texts,
)
from lorid.method.templates import TokenizerLike

VOCAB_SIZE = 1024
CONTEXT_TOKENS = 256
BATCH_ROWS = 8
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
CARD = """---
license: apache-2.0
pipeline_tag: text-generation
---
# lorid demo {kind}

{what}

| | |
|---|---|
| made by | `{command}` |
| architecture | Qwen2, {num_layers} layers of width {width}, tied embeddings |
| parameters | {num_parameters:,} |
| tokens | byte-level BPE, at most {vocab_size}, single digits |
| seed | {seed} |
| data | `lorid.demo.corpus`, training split only; {num_tokens:,} tokens seen |
| steps, final loss | {num_steps}, {loss:.4f} (mean of the last 50 steps, nats a token) |
| wall time | {minutes:.1f} min, {num_threads} threads |
| licence | Apache-2.0 |

A toy that makes the pipeline real on a laptop. It knows nothing beyond the demo's problems.
"""


def train_tokenizer(*, seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with single digits and a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts(seed=seed, count=4000), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def new_student(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """An untrained model of about two million parameters."""
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=640,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|end|>"),
        pad_token_id=tokenizer.get_vocab()["<|pad|>"],
    )
    return Qwen2ForCausalLM(config)


def packed_rows(documents: Iterator[list[int]]) -> Iterator[torch.Tensor]:
    """Endless (BATCH_ROWS, CONTEXT_TOKENS + 1) batches from documents laid end to end."""
    stream = itertools.chain.from_iterable(documents)
    while True:
        flat = list(itertools.islice(stream, BATCH_ROWS * (CONTEXT_TOKENS + 1)))
        yield torch.tensor(flat).view(BATCH_ROWS, CONTEXT_TOKENS + 1)


def fit(
    model: Qwen2ForCausalLM, batches: Iterator[torch.Tensor], *, num_steps: int, peak_lr: float
) -> float:
    """Train on next-token loss with AdamW and a cosine; returns the mean loss of the last steps."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak_lr, betas=(0.9, 0.98), weight_decay=0.01
    )
    warmup = max(1, num_steps // 30)

    def scale(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (num_steps - warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    losses: list[float] = []
    started = time.monotonic()
    model.train()
    for step, batch in zip(range(1, num_steps + 1), batches, strict=False):
        inputs, targets = batch[:, :-1], batch[:, 1:]
        # bfloat16 products halve the time on processors that know them; the weights stay float32.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 100 == 0:
            rate = step * inputs.numel() / (time.monotonic() - started)
            recent = sum(losses[-50:]) / 50
            print(f"step {step}/{num_steps}  loss {recent:.4f}  {rate:,.0f} tokens/s", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])


def teacher_documents(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> Iterator[list[int]]:
    """Endless teacher prompts with their JSON answers."""
    rng = random.Random(f"teacher-{seed}")
    while True:
        turn, answer = teacher_chat(draw_whole(rng))
        prompt, target = chat_ids(cast("TokenizerLike", tokenizer), turn=turn, answer=answer)
        yield prompt + target


def save(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    out: Path,
    card: dict[str, object],
) -> None:
    """Write float16 safetensors, tokenizer and model card."""
    model.half().save_pretrained(out)
    model.float()
    tokenizer.save_pretrained(out)
    config = model.config
    (out / "README.md").write_text(
        CARD.format(
            num_layers=config.num_hidden_layers,
            width=config.hidden_size,
            num_parameters=model.num_parameters(),
            vocab_size=VOCAB_SIZE,
            num_threads=torch.get_num_threads(),
            **card,
        )
    )


def main() -> None:
    """Make both models and print where they are."""
    parser = argparse.ArgumentParser(description="Make the demo's two models from nothing.")
    parser.add_argument("--out", type=Path, default=Path("lorid/demo/models"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--num-steps", type=int, default=6000)
    parser.add_argument("--teacher-steps", type=int, default=500)
    parser.add_argument("--num-threads", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.num_threads)
    tokenizer = train_tokenizer(seed=args.seed)
    model = new_student(tokenizer)
    tokens_a_step = BATCH_ROWS * CONTEXT_TOKENS
    plans = (
        (
            "base",
            base_documents(cast("TokenizerLike", tokenizer), seed=args.seed),
            args.num_steps,
            2e-3,
        ),
        ("teacher", teacher_documents(tokenizer, seed=args.seed), args.teacher_steps, 7e-4),
    )
    what = {
        "base": "Student base: knows the demo's arithmetic, one-step problems and plain solutions.",
        "teacher": "Reads a question and its rationale, writes the general rules as JSON.",
    }
    for kind, documents, num_steps, peak_lr in plans:
        started = time.monotonic()
        loss = fit(model, packed_rows(documents), num_steps=num_steps, peak_lr=peak_lr)
        card = {
            "kind": kind,
            "what": what[kind],
            "command": f"python -m lorid.training.pretrain --seed {args.seed} "
            f"--num-steps {args.num_steps} --teacher-steps {args.teacher_steps}",
            "seed": args.seed,
            "num_tokens": num_steps * tokens_a_step,
            "num_steps": num_steps,
            "loss": loss,
            "minutes": (time.monotonic() - started) / 60,
        }
        save(model, tokenizer, out=args.out / kind, card=card)
        print(json.dumps(card))


if __name__ == "__main__":
    main()

"""Examples, their order and their batches.

The order is one endless sequence per role: epoch after epoch, each shuffled by (seed, epoch). Step
s takes its own slice, so a resumed run needs only the step number to go on with the same data.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from lorid.errors import TrainingError
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role
from lorid.method.templates import IGNORED_LABEL, TokenizerLike, encode_example


@dataclass(frozen=True, kw_only=True)
class Example:
    """Ids and labels of one sequence; a label of -100 is not supervised."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Padded tensors of shape (sequences, longest)."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor


def encode_examples(
    problems: Sequence[EnrichedProblem],
    *,
    tokenizer: TokenizerLike,
    family: str,
    role: Role,
    max_tokens: int,
) -> tuple[list[Example], int]:
    """Examples of at most `max_tokens` ids, and how many problems were dropped as too long.

    Raises:
        TrainingError: nothing is left to train on.
    """
    examples: list[Example] = []
    for problem in problems:
        ids, labels = encode_example(tokenizer, family=family, role=role, problem=problem)
        if len(ids) <= max_tokens:
            examples.append(Example(input_ids=ids, labels=labels))
    if not examples:
        raise TrainingError(
            f"{role}: no example of at most {max_tokens} tokens among {len(problems)} problems; "
            "raise training.max_sequence_tokens"
        )
    return examples, len(problems) - len(examples)


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with; any id will do, for padding is masked and not supervised."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token_id, int):
            return token_id
    return 0


def num_steps(*, num_examples: int, num_epochs: float, sequences_per_step: int) -> int:
    """Optimizer steps of a run: the examples of all epochs over the sequences of a step."""
    return max(1, round(num_examples * num_epochs / sequences_per_step))


def step_indices(step: int, *, num_examples: int, sequences_per_step: int, seed: int) -> list[int]:
    """Which examples step `step` (from 0) takes, as indices."""
    chosen: list[int] = []
    position = step * sequences_per_step
    while len(chosen) < sequences_per_step:
        epoch, offset = divmod(position, num_examples)
        order = list(range(num_examples))
        random.Random(f"{seed}-{epoch}").shuffle(order)
        taken = order[offset : offset + sequences_per_step - len(chosen)]
        chosen += taken
        position += len(taken)
    return chosen


def collate(examples: Sequence[Example], *, pad_id: int, device: torch.device) -> Batch:
    """One padded batch; padding is on the right and not supervised."""
    longest = max(len(example.input_ids) for example in examples)

    def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
        filled = [row + [fill] * (longest - len(row)) for row in rows]
        return torch.tensor(filled, dtype=torch.long, device=device)

    return Batch(
        input_ids=padded([example.input_ids for example in examples], pad_id),
        labels=padded([example.labels for example in examples], IGNORED_LABEL),
        attention_mask=padded([[1] * len(example.input_ids) for example in examples], 0),
    )

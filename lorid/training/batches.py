"""Examples, and the flat batches that a step is computed in.

    examples, counts = encode_examples(problems, ...)
    for group in micro_batches(placed, max_tokens=8192): flat = flatten(group, device=device)

Batches hold no padding: sequences lie end to end, each with its own positions. Which examples a
step takes is `lorid.training.steps`'.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lorid.errors import NothingToLearn
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role, role_target
from lorid.method.templates import IGNORED_LABEL, TokenizerLike, encode_example
from lorid.training.routing import Stretch
from lorid.training.steps import filled, held_out

# What is left of a prompt that is cut must still say what is asked.
MIN_PROMPT_TOKENS = 8
TooLong = Literal["drop", "truncate"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """Ids and labels of one sequence; a label of -100 is not supervised."""

    input_ids: list[int]
    labels: list[int]
    problem_id: str = ""

    @property
    def num_tokens(self) -> int:
        """Length of the sequence."""
        return len(self.input_ids)

    @property
    def num_supervised(self) -> int:
        """Tokens with a loss; the first has nothing before it to be foretold from."""
        return sum(label != IGNORED_LABEL for label in self.labels[1:])


Fate = Literal["whole", "cut", "too long", "no target"]


@dataclass(frozen=True, kw_only=True)
class EncodingCounts:
    """What became of problems that are longer than the cut-off, or have no target."""

    num_dropped: int = 0
    num_truncated: int = 0
    num_untargeted: int = 0

    def said(self, *, max_tokens: int) -> str:
        """In words; nothing where every problem was taken whole."""
        said: list[str] = []
        if self.num_dropped or self.num_truncated:
            said.append(
                f"of the sequences over the cut-off of {max_tokens} tokens, {self.num_dropped} "
                f"dropped, {self.num_truncated} cut in the prompt's middle"
            )
        if self.num_untargeted:
            said.append(f"{self.num_untargeted} problems without a target left out")
        return "; ".join(said)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An example at its place: `key` names role and place, and is what dropout is drawn from."""

    role: Role
    key: str
    example: Example


@dataclass(frozen=True, kw_only=True)
class FlatBatch:
    """Sequences end to end in one row of tokens.

    `supervised` are the positions whose next token has a loss, `targets` those tokens, and
    `num_targets` how many each stretch has.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    boundaries: torch.Tensor
    longest: int
    supervised: torch.Tensor
    targets: torch.Tensor
    stretches: tuple[Stretch, ...]
    num_targets: tuple[int, ...]


def encode_examples(
    problems: Sequence[EnrichedProblem],
    *,
    tokenizer: TokenizerLike,
    family: str,
    role: Role,
    max_tokens: int,
    too_long: TooLong = "drop",
) -> tuple[list[Example], EncodingCounts]:
    """Examples of at most `max_tokens` ids, and how many problems were dropped or cut.

    Raises:
        NothingToLearn: nothing is left to train on.
    """
    examples: list[Example] = []
    fates: Counter[Fate] = Counter()
    for problem in problems:
        example, fate = encode_problem(
            problem,
            tokenizer=tokenizer,
            family=family,
            role=role,
            max_tokens=max_tokens,
            too_long=too_long,
        )
        fates[fate] += 1
        if example is not None:
            examples.append(example)
    if not examples and fates["no target"] == len(problems):
        raise NothingToLearn(
            f"{role}: none of {len(problems)} problems has a target to learn from; run the "
            "knowledge stage on problems that have rationales"
        )
    if not examples:
        raise NothingToLearn(
            f"{role}: no example of at most {max_tokens} tokens among {len(problems)} problems; "
            "raise training.max_sequence_tokens"
        )
    return examples, EncodingCounts(
        num_dropped=fates["too long"],
        num_truncated=fates["cut"],
        num_untargeted=fates["no target"],
    )


def encode_problem(
    problem: EnrichedProblem,
    *,
    tokenizer: TokenizerLike,
    family: str,
    role: Role,
    max_tokens: int,
    too_long: TooLong,
) -> tuple[Example | None, Fate]:
    """One example, or None and why there is none.

    "truncate" takes ids out of the middle of the prompt, never of the target.
    """
    if not role_target(role, problem).strip():
        # Its end alone would be learnt: to say nothing.
        return None, "no target"
    ids, labels = encode_example(tokenizer, family=family, role=role, problem=problem)
    fate: Fate = "whole"
    if len(ids) > max_tokens and too_long == "truncate":
        ids, labels = _without_middle(ids, labels, len(ids) - max_tokens)
        fate = "cut"
    if len(ids) > max_tokens:
        return None, "too long"
    found = problem.problem.problem_id
    return Example(input_ids=ids, labels=labels, problem_id=found), fate


def hold_out(
    examples: Sequence[Example], *, fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and to validate on; a problem is on the same side for every role.

    Raises:
        NothingToLearn: one of the two would be empty.
    """
    out = held_out([one.problem_id for one in examples], fraction=fraction, seed=seed)
    return (
        [one for one in examples if one.problem_id not in out],
        [one for one in examples if one.problem_id in out],
    )


def micro_batches(
    placed: Sequence[Placed], *, max_tokens: int, max_sequences: int | None = None
) -> list[list[Placed]]:
    """Parts of a step that are computed at once, in order; a sequence is never divided."""
    lengths = [one.example.num_tokens for one in placed]
    return filled(placed, lengths, max_tokens=max_tokens, max_items=max_sequences)


def flatten(placed: Sequence[Placed], *, device: torch.device) -> FlatBatch:
    """One row of all the sequences' tokens."""
    ids: list[int] = []
    positions: list[int] = []
    supervised: list[int] = []
    targets: list[int] = []
    stretches: list[Stretch] = []
    num_targets: list[int] = []
    for one in placed:
        start, example = len(ids), one.example
        ids += example.input_ids
        positions += range(example.num_tokens)
        found = [at for at, label in enumerate(example.labels) if at and label != IGNORED_LABEL]
        supervised += [start + at - 1 for at in found]
        targets += [example.labels[at] for at in found]
        num_targets.append(len(found))
        stretches.append(Stretch(role=one.role, start=start, end=len(ids), key=one.key))

    def tensor(values: list[int], dtype: torch.dtype = torch.long) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return FlatBatch(
        input_ids=tensor(ids).unsqueeze(0),
        position_ids=tensor(positions).unsqueeze(0),
        boundaries=tensor([0, *(stretch.end for stretch in stretches)], torch.int32),
        longest=max(one.example.num_tokens for one in placed),
        supervised=tensor(supervised),
        targets=tensor(targets),
        stretches=tuple(stretches),
        num_targets=tuple(num_targets),
    )


def _without_middle(ids: list[int], labels: list[int], excess: int) -> tuple[list[int], list[int]]:
    """The sequence with `excess` ids fewer in its prompt, or as it was if too little were left."""
    num_prompt = next((at for at, label in enumerate(labels) if label != IGNORED_LABEL), len(ids))
    if num_prompt - excess < MIN_PROMPT_TOKENS:
        return ids, labels
    start = (num_prompt - excess) // 2
    return ids[:start] + ids[start + excess :], labels[:start] + labels[start + excess :]

"""The simple way to serve three adapters at once: PEFT's mixed batches, `adapter_names` by row.

model = MixedBatches(triple)
texts = model.write([(problem, Role.DEEP_REASONER), ...])      # greedy, each with its tokens
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from serve_triple import DemoTriple, Problem
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorid.method.roles import Role
from lorid.method.templates import encode_prompt, stop_token_ids


class MixedBatches:
    """One base with three named adapters; prompts are padded on the left."""

    def __init__(self, triple: DemoTriple) -> None:
        torch.set_num_threads(triple.config.engine.num_threads)
        self.student, self.sampling = triple.config.student, triple.config.sampling
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.student.path)
        base = AutoModelForCausalLM.from_pretrained(self.student.path, dtype=torch.float32)
        first, *others = Role
        model: Any = PeftModel.from_pretrained(
            base, str(triple.folders[first]), adapter_name=str(first)
        )
        for role in others:
            model.load_adapter(str(triple.folders[role]), adapter_name=str(role))
        self.model = model.eval()
        self.stops = stop_token_ids(self.tokenizer, family=self.student.family)

    def write(self, asked: Sequence[tuple[Problem, Role]]) -> list[tuple[str, int]]:
        """A greedy text for each, and the number of its tokens, with the one that ends it."""
        prompts = [
            encode_prompt(
                self.tokenizer,
                family=self.student.family,
                role=role,
                question=problem.question,
                knowledge=problem.knowledge if role is Role.DEEP_REASONER else None,
            )
            for problem, role in asked
        ]
        longest = max(map(len, prompts))
        ids = [[self.stops[0]] * (longest - len(one)) + one for one in prompts]
        mask = [[0] * (longest - len(one)) + [1] * len(one) for one in prompts]
        with torch.inference_mode():
            written = self.model.generate(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                adapter_names=[str(role) for _, role in asked],
                do_sample=False,
                max_new_tokens=self.sampling.max_new_tokens,
                eos_token_id=self.stops,
                pad_token_id=self.stops[0],
            )
        return [self._text(row[longest:].tolist()) for row in written]

    def _text(self, tokens: list[int]) -> tuple[str, int]:
        ends = [index for index, token in enumerate(tokens) if token in self.stops]
        count = ends[0] + 1 if ends else len(tokens)
        return self.tokenizer.decode(tokens[:count], skip_special_tokens=True).strip(), count

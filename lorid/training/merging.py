"""An adapter merged into its base: one plain model folder, for engines without LoRA.

    merge_adapter(student, adapter=Path("adapters/deep_reasoner"), out=Path("merged"))

Serving three merged models costs three times the memory of one base with three adapters: merge
only where an engine cannot load adapters, or its speed matters more. An adapter that answers a
probe like the base, also by rounding in the base's precision, is refused: what is merged can no
longer be compared with the base.
"""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel

from lorid.artifacts.adapters import check_adapter
from lorid.config import ModelConfig
from lorid.errors import AdapterIdle, AdapterMismatch, DataError, one_line
from lorid.method.roles import Role
from lorid.method.templates import PROBE_QUESTION, TokenizerLike, encode_prompt
from lorid.training.adapters import load_base, load_tokenizer


def merge_adapter(student: ModelConfig, *, adapter: Path, out: Path) -> None:
    """Write the base with the adapter's product added to its weights, and the tokenizer.

    Raises:
        DataError: `out` holds something already.
        ConfigError: the base cannot be loaded.
        AdapterMismatch: the adapter does not fit it, or changes nothing.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder; choose another one")
    base, tokenizer = load_base(student), load_tokenizer(student)
    check_adapter(adapter, base=base.config.to_dict())
    prompt = encode_prompt(
        cast("TokenizerLike", tokenizer),
        family=student.family,
        role=Role.INTUITIVE_REASONER,
        question=PROBE_QUESTION,
    )
    before = _answer_to(base, prompt)
    try:
        model = PeftModel.from_pretrained(base, str(adapter))
        merged: Any = model.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        cause = one_line(error)
        raise AdapterMismatch(f"cannot merge {adapter} into {student.path}: {cause}") from error
    _require_change(before, _answer_to(merged, prompt), adapter=adapter)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that a failed merge leaves no half of one there.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".merging-") as temporary:
        made = Path(temporary) / "made"
        merged.save_pretrained(str(made), safe_serialization=True)
        tokenizer.save_pretrained(str(made))
        made.rename(out)


def _answer_to(model: Any, prompt: list[int]) -> torch.Tensor:
    """What the model would say next at each place of the prompt."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([prompt])).logits


def _require_change(before: torch.Tensor, after: torch.Tensor, *, adapter: Path) -> None:
    if not bool(torch.isfinite(after).all()):
        raise AdapterMismatch(f"{adapter}: merged, its likelihoods are not finite numbers")
    if torch.equal(before, after):
        raise AdapterIdle(f"{adapter}: merged into its base it answers like the base")

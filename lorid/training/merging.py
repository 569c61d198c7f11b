"""An adapter merged into its base: one plain model folder, for engines without LoRA.

    merge_adapter(student, adapter=Path("adapters/deep_reasoner"), out=Path("merged"))

Serving three merged models costs three times the memory of one base with three adapters: merge
only where an engine cannot load adapters.
"""

import tempfile
from pathlib import Path

from peft import PeftModel

from lorid.config import ModelConfig
from lorid.errors import AdapterMismatch, DataError, one_line
from lorid.training.adapters import load_base, load_tokenizer


def merge_adapter(student: ModelConfig, *, adapter: Path, out: Path) -> None:
    """Write the base with the adapter's product added to its weights, and the tokenizer.

    Raises:
        DataError: `out` holds something already.
        ConfigError: the base cannot be loaded.
        AdapterMismatch: the adapter does not fit it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder; choose another one")
    base, tokenizer = load_base(student), load_tokenizer(student)
    try:
        model = PeftModel.from_pretrained(base, str(adapter))
        merged = model.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as error:
        cause = one_line(error)
        raise AdapterMismatch(f"cannot merge {adapter} into {student.path}: {cause}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that a failed merge leaves no half of one there.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".merging-") as temporary:
        made = Path(temporary) / "made"
        merged.save_pretrained(str(made), safe_serialization=True)
        tokenizer.save_pretrained(str(made))
        made.rename(out)

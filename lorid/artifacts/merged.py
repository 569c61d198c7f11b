"""Merged weights of one role in a store: what names them, made by `lorid merge --publish`.

    inputs = merged_inputs(student, adapter=folder, role=role)
    record = find(store, kind="merged", name="demo", inputs=inputs)

They depend on the base's content and precision and on the adapter's files, and on nothing else: the
same in every replica and on every node.
"""

from collections.abc import Mapping
from pathlib import Path

from lorid.artifacts.adapters import CONFIG_FILE, WEIGHTS_FILE
from lorid.artifacts.triples import file_sha256, model_identity
from lorid.config import ModelConfig
from lorid.method.roles import Role


def merged_inputs(student: ModelConfig, *, adapter: Path, role: Role) -> Mapping[str, str]:
    """What decides the merged weights.

    Raises:
        DataError: a file cannot be read.
    """
    return {
        "base": model_identity(student),
        "dtype": student.dtype,
        "role": role,
        "adapter": file_sha256(adapter / WEIGHTS_FILE),
        "adapter_config": file_sha256(adapter / CONFIG_FILE),
    }

"""Adapters from the hub, by its own library with its token and cache.

    with adapters_from_hub(published_adapters("gsm8k_mistral")) as folders:
        import_triple(store, folders, ...)

The library's cache holds links, which an import refuses; what is given out are plain copies. Only
the two files of an adapter are asked for, so nothing pickled is fetched.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lorid.artifacts.adapters import CONFIG_FILE, WEIGHTS_FILE
from lorid.errors import DataError, one_line
from lorid.method.roles import Role


@contextmanager
def adapters_from_hub(
    names: Mapping[Role, str], *, revision: str | None = None
) -> Iterator[dict[Role, Path]]:
    """A folder for each role, as long as the block lasts.

    Raises:
        DataError: the hub does not answer, refuses, or has no safetensors there.
    """
    with tempfile.TemporaryDirectory(prefix="lorid-hub-") as temporary:
        folders: dict[Role, Path] = {}
        for role, name in names.items():
            cached = _fetch(name, revision=revision)
            folders[role] = Path(temporary) / role
            folders[role].mkdir()
            for file in (CONFIG_FILE, WEIGHTS_FILE):
                if not (cached / file).is_file():
                    raise DataError(
                        f"{name} on the hub has no {file}; only adapters in safetensors are read"
                    )
                shutil.copyfile(cached / file, folders[role] / file)
        yield folders


def _fetch(name: str, *, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE])
        )
    except Exception as error:
        raise DataError(
            f"cannot fetch {name} from the hub: {one_line(error, max_chars=160)}; check the name, "
            "the network, and HF_TOKEN if it is not public"
        ) from error

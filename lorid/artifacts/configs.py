"""A run's config wherever it lies: a file, or an object that the store's own clients reach.

    config = open_config("s3://my-bucket/runs/run.yaml", overrides=["training.rank=64"])

A job on a cluster then needs no file of its own in its upload. Only the config comes from there;
what it names is opened as ever.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from lorid.artifacts.store import open_store
from lorid.config import RunConfig, load_config, parse_config
from lorid.errors import ArtifactIncomplete, ConfigError

_OBJECT = re.compile(r"(?P<folder>s3://[^/]+(?:/.+)?)/(?P<name>[^/]+)")


def open_config(
    source: str | Path | None, *, preset: str | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """`load_config`, and the same of `s3://bucket/path/run.yaml`.

    Raises:
        ConfigError: everything that is wrong with the config, or there is none.
        ArtifactError: the bucket cannot be read.
    """
    if source is None and preset is None and not overrides:
        raise ConfigError("no config: name a file, or a --preset such as demo")
    if source is None or not str(source).startswith("s3:"):
        return load_config(source, preset=preset, overrides=overrides)
    text = _fetched(str(source))
    return parse_config(text, preset=preset, overrides=overrides, source=str(source))


def _fetched(uri: str) -> str:
    found = _OBJECT.fullmatch(uri)
    if found is None:
        raise ConfigError(f"cannot read config {uri}: write s3://bucket/path/run.yaml")
    try:
        return open_store(found["folder"]).read(found["name"]).decode("utf-8")
    except ArtifactIncomplete as error:
        raise ConfigError(
            f"cannot read config {uri}: there is no such object; name a YAML or JSON file"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read config {uri}: it is not UTF-8 text; name a YAML or JSON file"
        ) from error

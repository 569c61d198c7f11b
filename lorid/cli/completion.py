"""What the shell offers after TAB, beside commands and options: names that only lorid knows.

    Preset = Annotated[str, typer.Option(autocompletion=completion.presets)]

Names of runs, triples and aliases are read from the store of `--store` while that is a folder; no
network is asked at a keystroke. A store that cannot be read offers nothing.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

if TYPE_CHECKING:
    from lorid.artifacts.records import Kind
    from lorid.artifacts.store import ArtifactStore
    from lorid.sections import Section


def presets(incomplete: str) -> list[str]:
    """Names of presets."""
    from lorid.presets import PRESETS

    return _matching(PRESETS, incomplete)


def rules(incomplete: str) -> list[str]:
    """Rules that decide when a question is done."""
    from lorid.method.stopping import RULES

    return _matching(RULES, incomplete)


def live_rules(incomplete: str) -> list[str]:
    """Of these, those that need no label."""
    from lorid.method.stopping import LIVE_RULES

    return _matching(LIVE_RULES, incomplete)


def roles(incomplete: str) -> list[str]:
    """The three roles, as IR, KG and DR."""
    from lorid.method.roles import Role

    return _matching((role.short for role in Role), incomplete)


def families(incomplete: str) -> list[str]:
    """Prompt families of bases."""
    from lorid.method.templates import FAMILIES

    return _matching(FAMILIES, incomplete)


def fields(incomplete: str) -> list[str]:
    """Fields of a config, as `--set` takes them: training.rank=."""
    from lorid.config import RunConfig

    return _matching((f"{name}=" for name in _paths(RunConfig)), incomplete)


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names that have anything in the store."""
    return _matching({address.split("/")[1] for address in _addresses(ctx)}, incomplete)


def addresses(ctx: typer.Context, incomplete: str) -> list[str]:
    """Addresses of artifacts: KIND/NAME, the newest, and KIND/NAME/VERSION."""
    whole = _addresses(ctx)
    return _matching({*whole, *(one.rpartition("/")[0] for one in whole)}, incomplete)


def triples(ctx: typer.Context, incomplete: str) -> list[str]:
    """Triples by name and by version, and aliases behind an @."""
    versions = [one.removeprefix("triple/") for one in _addresses(ctx, kind="triple")]
    names = {one.split("/")[0] for one in versions}
    return _matching([*names, *versions, *(f"@{one}" for one in _aliases(ctx))], incomplete)


def aliases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Aliases."""
    return _matching(_aliases(ctx), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _paths(model: "type[Section]", *, before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section is None:
            yield before + name
        else:
            yield from _paths(section, before=f"{before}{name}.")


def _section_of(annotation: Any) -> "type[Section] | None":
    """The section that a field holds, optional ones too."""
    from lorid.sections import Section

    for one in (annotation, *get_args(annotation)):
        if isinstance(one, type) and issubclass(one, Section):
            return one
    return None


def _store(ctx: typer.Context) -> "ArtifactStore | None":
    from lorid.artifacts.store import open_store

    place = str(ctx.params.get("store") or "")
    return open_store(place) if Path(place).is_dir() else None


def _addresses(ctx: typer.Context, *, kind: "Kind | None" = None) -> list[str]:
    from lorid.artifacts.records import Kind

    store = _store(ctx)
    if store is None:
        return []
    keys = (key for one in ([kind] if kind else get_args(Kind)) for key in store.list(f"{one}/"))
    records = (key.removesuffix("/record.json") for key in keys if key.endswith("/record.json"))
    return [address for address in records if address.count("/") == 2]


def _aliases(ctx: typer.Context) -> list[str]:
    from lorid.artifacts.aliases import alias_names

    store = _store(ctx)
    return alias_names(store) if store else []

"""`lorid triple export` and `import`: a triple as a folder that needs nothing of ours, and back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorid.cli import completion
from lorid.cli.app import DEFAULT_STORE, AsJson, Overrides, Preset, Store, say_next
from lorid.cli.triples import Reference, opened_triple, triple_app
from lorid.errors import DataError

if TYPE_CHECKING:
    from lorid.config import EndpointConfig, ModelConfig
    from lorid.method.roles import Role


@triple_app.command("export")
def triple_export(
    triple: Reference,
    output: Annotated[Path, typer.Option("-o", "--output", help="a new or empty folder")],
    store: Store = DEFAULT_STORE,
    base: Annotated[
        str | None, typer.Option(help="hub id to name as the base, instead of a local path")
    ] = None,
    license_id: Annotated[str, typer.Option("--license", help="for the model cards")] = "unknown",
    as_json: AsJson = False,
) -> None:
    """Write a hub-style folder: three PEFT adapters with model cards.

    Beside them stands triple.json, which says how they belong together.

    Example: lorid triple export demo -o demo-triple --store lorid-demo/store
    """
    from lorid.artifacts.hub import export_triple
    from lorid.artifacts.store import open_store

    record, _ = opened_triple(store, triple)
    manifest = export_triple(
        open_store(store), record, into=output, base_name=base, license_id=license_id
    )
    if as_json:
        typer.echo(json.dumps({"triple": record.address, "folder": str(output)}))
        return
    if Path(manifest.base.name).is_absolute():
        typer.echo(f"note: the base is a path here, {manifest.base.name}; --base ID names a hub's",
                   err=True)  # fmt: skip
    typer.echo(str(output))


@triple_app.command("import")
def triple_import(
    name: Annotated[str, typer.Option(help="name of the triple in the store")],
    folders: Annotated[
        list[str] | None,
        typer.Argument(
            help="an exported folder, or three adapters, folders or hub ids: IR=.. KG=.. DR=..; "
            "none for those that are published for the preset"
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    config: Annotated[
        Path | None, typer.Option(help="a config: how the adapters are used, without triple.json")
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    base: Annotated[str | None, typer.Option(help="the base: a folder or a hub id")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="the base's prompt family", autocompletion=completion.families),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="the base's revision on the hub")] = None,
    as_json: AsJson = False,
) -> None:
    """Take a triple into a store.

    It is an exported folder, or three PEFT adapters and a config. Names that end in -IR, -KG
    and -DR, as the published ones do, need no IR=, KG=, DR=. What is no folder here is fetched
    from the hub (HF_TOKEN, HF_HOME). Pickled files and links are refused.

    Example: lorid triple import --name gsm8k-published --preset gsm8k_mistral
    """
    from lorid.artifacts.hub import import_triple
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import HUB_ID, read_manifest
    from lorid.presets import published_adapters

    opened = open_store(store)
    if folders:
        places = _places(folders)
    elif preset is not None:
        places = published_adapters(preset)
    else:
        raise DataError("name an exported folder or three adapters, or a --preset")
    settings = _settings(config, preset=preset, overrides=overrides or [])
    with _on_this_machine(places) as here:
        model = _base_model(here, settings, base=base, family=family, revision=revision)
        if model is None and settings is not None and not folders:
            # The published adapters name paths of their makers; the preset knows the base.
            model = settings.student
        record = import_triple(opened, here, name=name, settings=settings, base=model)
    used = read_manifest(opened, record).base.name
    if not Path(used).is_dir() and not HUB_ID.fullmatch(used):
        typer.echo(f"note: the base {used} is not on this machine; --base names another", err=True)
    if as_json:
        typer.echo(json.dumps({"triple": record.address}))
        return
    typer.echo(record.address)
    say_next(f"lorid triple verify {name} --store {store}")


@contextmanager
def _on_this_machine(places: "dict[Role, str] | Path") -> "Iterator[dict[Role, Path] | Path]":
    """The folders; three hub ids are fetched."""
    from lorid.artifacts.hub_adapters import adapters_from_hub
    from lorid.artifacts.triples import HUB_ID

    if isinstance(places, Path):
        yield places
        return
    from_hub = {
        role: place
        for role, place in places.items()
        if not Path(place).exists() and "/" in place and HUB_ID.fullmatch(place)
    }
    with adapters_from_hub(from_hub) as fetched:
        yield {role: fetched.get(role, Path(place)) for role, place in places.items()}


def _places(folders: list[str]) -> "dict[Role, str] | Path":
    from lorid.method.roles import Role

    if len(folders) == 1 and "=" not in folders[0]:
        return Path(folders[0])
    places: dict[Role, str] = {}
    for text in folders:
        label, equals, path = text.partition("=")
        label, path = (label, path) if equals else (Path(text).name, text)
        roles = [role for role in Role if label in (role, role.short)] or [
            role for role in Role if label.endswith((f"-{role.short}", str(role)))
        ]
        if len(roles) != 1 or roles[0] in places:
            raise DataError(f"{text}: which role is it? write IR=DIR, KG=DIR and DR=DIR, each once")
        places[roles[0]] = path
    if len(places) != len(Role):
        missing = ", ".join(role.short for role in Role if role not in places)
        raise DataError(f"no folder is given for {missing}; a triple has three")
    return places


def _settings(
    config: Path | None, *, preset: str | None, overrides: list[str]
) -> "EndpointConfig | None":
    from lorid.config import load_config

    if config is None and preset is None:
        if overrides:
            raise DataError("--set changes a config: give --config or --preset too")
        return None
    return load_config(config, preset=preset, overrides=overrides).endpoint()


def _base_model(
    places: "dict[Role, Path] | Path",
    settings: "EndpointConfig | None",
    *,
    base: str | None,
    family: str | None,
    revision: str | None,
) -> "ModelConfig | None":
    """The base that the options name; None when they name none."""
    from lorid.artifacts.hub import read_source
    from lorid.artifacts.triples import HUB_ID
    from lorid.config import ModelConfig
    from lorid.errors import ConfigError
    from lorid.method.templates import FAMILIES

    if base is None and family is None and revision is None:
        return None
    source = read_source(places) if isinstance(places, Path) else None
    known = source.base.model() if source else settings.student if settings else None
    if family is not None and family not in FAMILIES:
        raise ConfigError(f"family {family!r}: choose one of {', '.join(FAMILIES)}")
    if known is None and base is None:
        raise DataError("--family and --revision belong to a base: give --base too")
    path = base or (known.path if known else "")
    if Path(path).is_dir():
        path = str(Path(path).resolve())
    elif base is not None and not HUB_ID.fullmatch(base):
        raise DataError(f"the base {base} is neither a folder here nor a hub id (org/name)")
    update: dict[str, Any] = {"path": path, "revision": revision}
    if family is not None:
        update["family"] = family
    return (known or ModelConfig(path=path)).model_copy(update=update)

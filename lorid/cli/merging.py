"""`lorid merge`: one adapter of a triple merged into its base, as a plain model folder."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lorid.cli.app import DEFAULT_STORE, AsJson, Store, app
from lorid.cli.triples import Reference, opened_triple
from lorid.errors import DataError


@app.command("merge")
def merge(
    triple: Reference,
    role: Annotated[str, typer.Argument(help="IR, KG, DR or the role's name")],
    output: Annotated[Path, typer.Option("-o", "--output", help="a new or empty folder")],
    store: Store = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Write merged weights: the base with one adapter added, for engines without LoRA.

    Example: lorid merge demo DR -o demo-deep-reasoner --store lorid-demo/store
    """
    from lorid.artifacts.records import fetch
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import role_folders
    from lorid.method.roles import Role
    from lorid.training.merging import merge_adapter

    chosen = [one for one in Role if role in (one, one.short)]
    if not chosen:
        raise DataError(f"role {role!r}: choose one of {', '.join(one.short for one in Role)}")
    record, manifest = opened_triple(store, triple)
    with tempfile.TemporaryDirectory() as folder:
        fetch(open_store(store), record, into=Path(folder))
        adapter = role_folders(Path(folder))[chosen[0]]
        merge_adapter(manifest.base.model(), adapter=adapter, out=output)
    if as_json:
        typer.echo(json.dumps({"triple": record.address, "role": chosen[0], "folder": str(output)}))
        return
    typer.echo(str(output))

"""`lorid merge`: one adapter of a triple merged into its base, as a plain model folder."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lorid.cli import completion
from lorid.cli.app import DEFAULT_STORE, AsJson, Store, app
from lorid.cli.triples import Reference, opened_triple
from lorid.errors import DataError


@app.command("merge")
def merge(
    triple: Reference,
    role: Annotated[
        str,
        typer.Argument(help="IR, KG, DR or the role's name", autocompletion=completion.roles),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="a new or empty folder")],
    store: Store = DEFAULT_STORE,
    publish: Annotated[
        bool, typer.Option("--publish", help="store them too, for serving.layout=merged")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the base with one adapter merged into it.

    The folder is a plain model, for engines without LoRA.

    Example: lorid merge demo DR -o demo-deep-reasoner --store lorid-demo/store
    """
    if not sys.stderr.isatty():
        # transformers' bars are for terminals; tqdm reads this when it is imported, below.
        os.environ.setdefault("TQDM_DISABLE", "1")
    from lorid.artifacts.merged import merged_inputs
    from lorid.artifacts.records import fetch
    from lorid.artifacts.records import publish as store_folder
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import role_folders
    from lorid.method.roles import Role
    from lorid.training.merging import merge_adapter

    chosen = [one for one in Role if role in (one, one.short)]
    if not chosen:
        raise DataError(f"role {role!r}: choose one of {', '.join(one.short for one in Role)}")
    record, manifest = opened_triple(store, triple)
    base, opened, stored = manifest.base.model(), open_store(store), None
    with tempfile.TemporaryDirectory() as folder:
        fetch(opened, record, into=Path(folder))
        adapter = role_folders(Path(folder))[chosen[0]]
        merge_adapter(base, adapter=adapter, out=output)
        if publish:
            stored = store_folder(
                opened,
                output,
                kind="merged",
                name=manifest.name,
                inputs=merged_inputs(base, adapter=adapter, role=chosen[0]),
                parents=[record.address],
            )
    if as_json:
        made = {"triple": record.address, "role": chosen[0], "folder": str(output)}
        typer.echo(json.dumps({**made, "stored": stored and stored.address}))
        return
    typer.echo(str(output))
    if stored:
        typer.echo(stored.address)

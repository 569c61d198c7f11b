"""`lorid knowledge`: the knowledge data set of a run, on the hub."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lorid.cli import completion
from lorid.cli.app import DEFAULT_STORE, AsJson, Store, app
from lorid.errors import DataError, one_line

knowledge_app = typer.Typer(
    help="Knowledge data sets.\n\nExample: lorid knowledge push --help", no_args_is_help=True
)
app.add_typer(knowledge_app, name="knowledge")


@knowledge_app.command("push")
def knowledge_push(
    address: Annotated[
        str,
        typer.Argument(
            help="knowledge/NAME (the newest) or knowledge/NAME/VERSION",
            autocompletion=completion.addresses,
        ),
    ],
    to: Annotated[str, typer.Option(help="data set on the hub: org/name")],
    store: Store = DEFAULT_STORE,
    public: Annotated[bool, typer.Option(help="let everybody read it")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a run's knowledge with its card as a data set on the hub.

    It is private unless --public is given. The hub's token comes from HF_TOKEN or `hf auth login`.

    Example: lorid knowledge push knowledge/my-run --to my-org/my-rules
    """
    from lorid.artifacts.addresses import named_record
    from lorid.artifacts.records import fetch
    from lorid.artifacts.store import open_store

    if not address.startswith("knowledge/"):
        raise DataError(f"{address} is no knowledge; `lorid runs list` shows their addresses")
    opened = open_store(store)
    record = named_record(opened, address)
    with tempfile.TemporaryDirectory(prefix="lorid-") as folder:
        fetch(opened, record, into=Path(folder))
        url = _uploaded(Path(folder), to=to, public=public)
    typer.echo(json.dumps({"knowledge": address, "url": url}) if as_json else url)


def _uploaded(folder: Path, *, to: str, public: bool) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(to, repo_type="dataset", private=not public, exist_ok=True)
        api.upload_folder(repo_id=to, repo_type="dataset", folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        cause = one_line(error)
        raise DataError(
            f"the hub did not take {to}: {cause}; check its name and HF_TOKEN"
        ) from error
    return f"https://huggingface.co/datasets/{to}"

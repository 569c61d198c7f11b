"""`lorid knowledge`: the knowledge data set of a run, on the hub."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lorid.cli.app import DEFAULT_STORE, Store, app
from lorid.errors import DataError, one_line

knowledge_app = typer.Typer(help="Knowledge data sets.", no_args_is_help=True)
app.add_typer(knowledge_app, name="knowledge")


@knowledge_app.command("push")
def knowledge_push(
    address: Annotated[str, typer.Argument(help="knowledge/NAME/VERSION, as `runs list` shows it")],
    to: Annotated[str, typer.Option(help="data set on the hub: org/name")],
    store: Store = DEFAULT_STORE,
    public: Annotated[bool, typer.Option(help="let everybody read it")] = False,
) -> None:
    """Upload a run's knowledge with its card as a data set on the hub, private unless --public.

    The hub's token comes from HF_TOKEN or `hf auth login`.

    Example: lorid knowledge push knowledge/my-run/0123456789ab --to my-org/my-rules
    """
    from lorid.artifacts.records import fetch, load_record
    from lorid.artifacts.store import open_store

    if not address.startswith("knowledge/"):
        raise DataError(f"{address} is no knowledge; `lorid runs list` shows their addresses")
    opened = open_store(store)
    record = load_record(opened, address)
    with tempfile.TemporaryDirectory(prefix="lorid-") as folder:
        fetch(opened, record, into=Path(folder))
        typer.echo(_uploaded(Path(folder), to=to, public=public))


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

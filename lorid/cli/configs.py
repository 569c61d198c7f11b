"""`lorid config`: show and check configs."""

from typing import Annotated

import typer

from lorid.artifacts.configs import open_config
from lorid.cli.app import Overrides, Preset, app
from lorid.config import dump_config

config_app = typer.Typer(help="Show and check configs.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@config_app.command("show")
def config_show(
    file: Annotated[str | None, typer.Argument(help="config file, or s3://...")] = None,
    preset: Preset = None,
    overrides: Overrides = None,
) -> None:
    """Print the complete resolved config.

    Example: lorid config show --preset demo --set training.rank=64
    """
    typer.echo(dump_config(open_config(file, preset=preset, overrides=overrides or [])), nl=False)


@config_app.command("check")
def config_check(
    file: Annotated[str, typer.Argument(help="config file, or s3://...")],
    overrides: Overrides = None,
) -> None:
    """Report every problem of a config at once; exit 2 when there is one.

    Example: lorid config check run.yaml
    """
    config = open_config(file, overrides=overrides or [])
    typer.echo(f"{file}: ok (run {config.name!r}, store {config.store})")

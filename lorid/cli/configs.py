"""`lorid config`: show and check configs."""

import json
from typing import Annotated

import typer

from lorid.artifacts.configs import open_config
from lorid.cli.app import AsJson, Overrides, Preset, app, say_next
from lorid.config import dump_config
from lorid.errors import ConfigError

config_app = typer.Typer(
    help="Show and check configs.\n\nExample: lorid config check run.yaml", no_args_is_help=True
)
app.add_typer(config_app, name="config")


@config_app.command("show")
def config_show(
    file: Annotated[str | None, typer.Argument(help="config file, or s3://...")] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print the complete resolved config.

    Example: lorid config show --preset demo --set training.rank=64
    """
    config = open_config(file, preset=preset, overrides=overrides or [])
    typer.echo(f"{config.model_dump_json()}\n" if as_json else dump_config(config), nl=False)


@config_app.command("check")
def config_check(
    file: Annotated[str, typer.Argument(help="config file, or s3://...")],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Name every problem of a config at once; exit 2 if there is one.

    Example: lorid config check run.yaml
    """
    try:
        config = open_config(file, overrides=overrides or [])
    except ConfigError as error:
        if as_json:
            lines = [line.strip() for line in str(error).splitlines()]
            typer.echo(json.dumps({"ok": False, "problems": lines[1:] or lines}))
        raise
    if as_json:
        typer.echo(json.dumps({"ok": True, "run": config.name, "store": config.store}))
        return
    typer.echo(f"{file}: ok (run {config.name!r}, store {config.store})")
    say_next(f"lorid plan {file}")

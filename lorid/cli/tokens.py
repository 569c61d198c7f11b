"""`lorid token new`: a bearer token for an endpoint."""

import json
from typing import Annotated

import typer

from lorid.cli.app import AsJson, app

token_app = typer.Typer(
    help="Tokens of an endpoint.\n\nExample: lorid token new alice >> tokens", no_args_is_help=True
)
app.add_typer(token_app, name="token")


@token_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="who will use it; stands in the audit log")],
    as_json: AsJson = False,
) -> None:
    """Make a token: the token on stderr, on stdout the line that lets it in.

    It is shown this once; with --json both are on stdout.

    Example: lorid token new alice >> /etc/lorid/tokens
    """
    from lorid.distributed.access import new_token

    token, line = new_token(name)
    if as_json:
        typer.echo(json.dumps({"name": name, "token": token, "line": line}))
        return
    typer.echo(f"token (shown only now): {token}", err=True)
    typer.echo(line)

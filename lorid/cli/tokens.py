"""`lorid token new`: a bearer token for an endpoint."""

from typing import Annotated

import typer

from lorid.cli.app import app

token_app = typer.Typer(help="Tokens of an endpoint.", no_args_is_help=True)
app.add_typer(token_app, name="token")


@token_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="who will use it; stands in the audit log")],
) -> None:
    """Print a new token once, on stderr, and on stdout the line that lets it in.

    Example: lorid token new alice >> /etc/lorid/tokens
    """
    from lorid.distributed.access import new_token

    token, line = new_token(name)
    typer.echo(f"token (shown only now): {token}", err=True)
    typer.echo(line)

"""The command `doherty health`."""

from typing import Final

import click

from doherty import Health
from doherty.cli._connect import ServerCommand, ServerOptions, server_options
from doherty.cli._exit import NOT_SERVING
from doherty.cli._tables import print_json

_EXAMPLES: Final = """\
\b
Examples:
  doherty health
  doherty health --target gpu1:50051 --json
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@server_options(timeout=5)
@click.pass_context
def health(context: click.Context, *, server: ServerOptions, as_json: bool) -> None:
    """Show whether the server accepts requests.

    Prints the status of the server's health service, and exits with 0 only for SERVING.
    """
    with server.connect() as client:
        status = client.health()
    if as_json:
        print_json({"status": status})
    else:
        click.echo(status)
    if status is not Health.SERVING:
        context.exit(NOT_SERVING)

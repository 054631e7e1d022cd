"""The command `doherty count`."""

import click

from doherty import Message
from doherty.cli._connect import ServerOptions, server_options
from doherty.cli._prompt import prompt_options
from doherty.cli._tables import print_json


@click.command()
@prompt_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@server_options(timeout=10)
def count(*, server: ServerOptions, prompt: str | list[Message], system: str | None, as_json: bool) -> None:
    """Count the tokens of a prompt as the model reads it.

    The prompt is that of generate, and the chat template counts, too.
    """
    with server.connect() as client:
        try:
            tokens = client.count_tokens(prompt, system=system)
        except (TypeError, ValueError) as error:
            # The SDK refused the prompt.
            raise click.UsageError(str(error)) from error
    if as_json:
        print_json({"tokens": tokens})
    else:
        click.echo(tokens)

"""The command `doherty count`."""

from typing import Final

import click

from doherty import Message
from doherty.cli._connect import ServerCommand, ServerOptions, server_options
from doherty.cli._prompt import prompt_options
from doherty.cli._tables import print_json

_EXAMPLES: Final = """\
\b
Examples:
  doherty count "What atoms are in water?"
  doherty count --system "You are brief." < report.txt
  doherty count --messages talk.json --json
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@prompt_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@server_options(timeout=10)
def count(*, server: ServerOptions, prompt: str | list[Message], system: str | None, as_json: bool) -> None:
    """Count the tokens of a prompt as the model reads it.

    The prompt is given as for generate. The tokens of the chat template are included.
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

"""The command `doherty generate`."""

import sys
from pathlib import Path
from typing import Any

import click

from doherty import Client
from doherty.cli._answer import show, tell_end
from doherty.cli._connect import ServerOptions, server_options
from doherty.cli._tables import print_json


def _read_schema(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise click.BadParameter(str(error), ctx=context, param=parameter) from error


def _read_prompt(prompt: str | None) -> str:
    if prompt not in (None, "-"):
        if not prompt.strip():
            raise click.UsageError("The prompt is empty.")
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("There is no prompt: give one, or pipe one in.")
    try:
        piped = sys.stdin.buffer.read().decode()
    except UnicodeError as error:
        raise click.UsageError(f"The prompt on stdin is not UTF-8: {error}.") from error
    if not piped.strip():
        raise click.UsageError("There is no prompt on stdin.")
    return piped


@click.command()
@click.argument("prompt", required=False)
@click.option("--system", help="The instructions to the model.")
@click.option("--temperature", type=float, help="0 always takes the most probable token.")
@click.option("--top-p", type=float, help="Sample from the most probable tokens that add up to this.")
@click.option("--max-output-tokens", type=int, help="The most tokens that the answer may have.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated.")
@click.option("--seed", type=int, help="Make sampling repeatable.")
@click.option("--schema", callback=_read_schema, metavar="JSON|@FILE", help="A JSON Schema that the answer fits.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="End the answer then with what there is.")
@click.option("--adapter", help="The name of a LoRA adapter.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole result as one JSON object, times in seconds.")
@server_options(timeout=60)
def generate(*, server: ServerOptions, prompt: str | None, as_json: bool, **request: Any) -> None:
    """Generate one answer and stream it to stdout.

    Without PROMPT, or for "-", the prompt is read from stdin. What is not given takes the deployment's default.
    """
    text = _read_prompt(prompt)
    with server.connect() as client:
        try:
            _generate(client, text, request, as_json=as_json)
        except (TypeError, ValueError) as error:
            # The SDK refused the parameters.
            raise click.UsageError(str(error)) from error


def _generate(client: Client, prompt: str, request: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(client.generate(prompt, **request))
        return
    with client.stream_generate(prompt, **request) as stream:
        tell_end(show(stream))

"""The command `doherty chat`."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from doherty._core._errors import DohertyError
from doherty._core._prompt import Message
from doherty._sync._client import Client
from doherty.cli._answer import show, tell_end
from doherty.cli._connect import Server, failure, server_options
from doherty.cli._exit import tell

if TYPE_CHECKING:
    from doherty._sync._stream import GenerationStream


@click.command()
@click.option("--system", help="The instructions to the model.")
@server_options(timeout=60)
def chat(*, server: Server, system: str | None) -> None:
    """Talk with the model.

    Ctrl-C stops an answer; what there is of it stays in the conversation. At the prompt Ctrl-C, Ctrl-D and :q leave.
    """
    interactive = sys.stdin.isatty()
    with server.connect() as client:
        if interactive:
            _greet(client)
        try:
            _talk(client, system, interactive=interactive)
        except ValueError as error:  # input() cannot decode it, or the SDK not encode what a lenient locale let through
            raise click.UsageError(f"What was typed or piped in is not UTF-8: {str(error).rstrip('.')}.") from error


def _greet(client: Client) -> None:
    if find_spec("readline"):  # it gives `input` line editing; Windows has its own
        import_module("readline")
    click.secho(f"{client.model().model} at {client.target}; Ctrl-C stops an answer, :q leaves", err=True, dim=True)


def _talk(client: Client, system: str | None, *, interactive: bool) -> None:
    turns: list[Message] = []
    while (question := _read_question(interactive=interactive)) is not None:
        if not question:
            continue
        turns.append(Message("user", question))
        if text := _answer(client, turns, system, interactive=interactive):
            turns.append(Message("assistant", text))
        else:
            # A question that got no answer would be followed by another one, which many chat templates refuse.
            turns.pop()


def _read_question(*, interactive: bool) -> str | None:
    """The next line; None to leave."""
    try:
        line = input("> " if interactive else "").strip()
    except EOFError:
        line = None
    except KeyboardInterrupt:
        if not interactive:
            raise
        line = None
    if interactive and line is None:
        click.echo()
    return None if line == ":q" else line


def _answer(client: Client, turns: list[Message], system: str | None, *, interactive: bool) -> str:
    """Shows the next answer and returns its text, as far as it came.

    On a terminal neither Ctrl-C nor a call that fails ends the conversation.
    """
    stream: GenerationStream | None = None
    try:
        with client.stream_generate(turns, system=system) as stream:
            tell_end(show(stream))
    except KeyboardInterrupt:
        if not interactive:
            raise
        click.secho("stopped", err=True, dim=True)
    except DohertyError as error:
        if not interactive:
            raise
        tell(failure(error))
    return stream.text if stream else ""

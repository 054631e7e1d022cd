"""The command `doherty chat`."""

import sys
from contextlib import closing
from typing import Final

import click

from doherty import Client, DohertyError, Generation, GenerationStream, Message
from doherty.cli._answer import show, tell_cut, tell_end
from doherty.cli._connect import ServerCommand, ServerOptions, failure, server_options
from doherty.cli._conversation import Conversation
from doherty.cli._echo import silenced
from doherty.cli._exit import tell
from doherty.cli._history import history_file
from doherty.cli._keyboard import Keyboard, read_entry, unquoted
from doherty.cli._slash import SlashCommands
from doherty.cli._tables import print_json
from doherty.cli._terminal import brief

_EXAMPLES: Final = """\
\b
Examples:
  doherty chat
  doherty chat --system "You are brief." --target gpu1:50051,gpu2:50051
  doherty chat --json < questions.txt
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@click.option("--system", help="The instructions to the model.")
@click.option("--no-history", is_flag=True, help="Do not save or load the history of typed lines.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print each answer as one line of JSON. The questions must come from a pipe.",
)
@server_options(timeout=60)
def chat(*, server: ServerOptions, system: str | None, no_history: bool, as_json: bool) -> None:
    """Chat with the model.

    Ctrl-C stops an answer; the part that was received stays in the conversation. At the prompt, Ctrl-C, Ctrl-D and
    /quit end the chat, and /help lists all commands. Several lines are one question if they are pasted, or are between
    two lines of \"\"\". A terminal shows an answer as Markdown, with its speed below it. Typed lines are saved in
    $XDG_STATE_HOME/doherty/chat_history, for the arrow keys. If the input comes from a pipe, each line is a question,
    and an error ends the chat.
    """
    if as_json and sys.stdin.isatty():
        raise click.UsageError("--json is for questions that are piped in.")
    with server.connect() as client:
        conversation = Conversation(client.model().model, system)
        if sys.stdin.isatty():
            keyboard = Keyboard(None if no_history else history_file())
            click.secho(f"{brief(conversation.model)} at {client.target}; /help", err=True, dim=True)
            _talk(client, conversation, keyboard)
        else:
            _answer_lines(client, conversation, as_json=as_json)


def _answer_lines(client: Client, conversation: Conversation, *, as_json: bool) -> None:
    """Answers the questions from a pipe. Any error ends this."""
    commands = SlashCommands(conversation)
    try:
        while not _is_end(entry := read_entry(_read_piped)):
            if question := _question(entry, commands):
                generation = _ask(client, conversation, question, is_shown=not as_json)
                if as_json:
                    print_json(generation.to_dict(), indent=None)
                else:
                    tell_cut(generation)
    except EOFError:
        pass
    except ValueError as error:  # a line cannot be decoded, or the SDK cannot encode it because the locale is lenient
        raise _not_text(error) from error


def _read_piped(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _talk(client: Client, conversation: Conversation, keyboard: Keyboard) -> None:
    """Answers a person at a terminal. Neither Ctrl-C during an answer nor a failed call ends the chat."""
    commands = SlashCommands(conversation)
    while (entry := _read(keyboard)) is not None:
        try:
            if question := _question(entry, commands):
                with silenced():
                    generation = _ask(client, conversation, question)
                tell_end(generation)
        except KeyboardInterrupt:
            click.secho("stopped", err=True, dim=True)
        except DohertyError as error:
            tell(failure(error))
        except ValueError as error:
            tell(_not_text(error))


def _read(keyboard: Keyboard) -> str | None:
    """Returns the next input; None to end the chat."""
    try:
        entry = keyboard.read()
    except (EOFError, KeyboardInterrupt):
        click.echo(err=True)
        return None
    return None if _is_end(entry) else entry


def _is_end(entry: str) -> bool:
    return entry.strip() in (":q", "/quit")


def _question(entry: str, commands: SlashCommands) -> str | None:
    """Returns the question in an input. If the input is a command, this runs it; some commands also ask a question."""
    quoted = unquoted(entry)
    if quoted is not None:
        return quoted
    if entry.startswith("/") and "\n" not in entry.strip():
        return commands.run(entry.strip())
    return entry.strip()


def _not_text(error: ValueError) -> click.UsageError:
    return click.UsageError(f"What was typed or piped in is not UTF-8: {str(error).rstrip('.')}.")


def _ask(client: Client, conversation: Conversation, question: str, *, is_shown: bool = True) -> Generation:
    """Shows the next answer, and adds the question and what was received to the conversation."""
    stream: GenerationStream | None = None
    turns = [*conversation.turns, Message("user", question)]
    try:
        # Entering the stream would wait for the admission without showing a status.
        with closing(client.stream_generate(turns, system=conversation.system, **conversation.parameters)) as stream:
            return show(stream, live=True) if is_shown else stream.result()
    finally:
        conversation.add(question, "" if stream is None else stream.text)

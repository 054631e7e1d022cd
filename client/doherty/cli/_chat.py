"""The command `doherty chat`."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from doherty import Client, DohertyError, Generation, Message
from doherty.cli._answer import show, speed, tell_cut
from doherty.cli._connect import ServerCommand, ServerOptions, failure, server_options
from doherty.cli._conversation import Conversation
from doherty.cli._exit import tell
from doherty.cli._keyboard import Keyboard, history_file
from doherty.cli._slash import SlashCommands
from doherty.cli._terminal import brief

if TYPE_CHECKING:
    from doherty import GenerationStream


_EXAMPLES: Final = """\
\b
Examples:
  doherty chat
  doherty chat --system "You are brief." --target gpu1:50051,gpu2:50051
  doherty chat --no-history < questions.txt
"""


@click.command(cls=ServerCommand, epilog=_EXAMPLES)
@click.option("--system", help="The instructions to the model.")
@click.option("--no-history", is_flag=True, help="Keep nothing of what is typed, and recall nothing.")
@server_options(timeout=60)
def chat(*, server: ServerOptions, system: str | None, no_history: bool) -> None:
    """Talk with the model.

    Ctrl-C stops an answer; what there is of it stays in the conversation. At the prompt Ctrl-C, Ctrl-D and /quit leave,
    and /help lists what else can be typed. On a terminal an answer is shown as Markdown, and the prompt tells how fast
    the last one was. What is typed is kept in $XDG_STATE_HOME/doherty/chat_history, for the arrow keys.
    """
    with server.connect() as client:
        conversation = Conversation(client.model().model, system)
        try:
            if sys.stdin.isatty():
                keyboard = Keyboard(None if no_history else history_file())
                click.secho(f"{brief(conversation.model)} at {client.target}; /help", err=True, dim=True)
                _talk(client, conversation, keyboard)
            else:
                _answer_lines(client, conversation)
        except ValueError as error:  # a line cannot be decoded, or the SDK not encode what a lenient locale let through
            raise click.UsageError(f"What was typed or piped in is not UTF-8: {str(error).rstrip('.')}.") from error


def _answer_lines(client: Client, conversation: Conversation) -> None:
    """Answers piped input line by line. Any error ends it."""
    commands = SlashCommands(conversation)
    for line in iter(sys.stdin.readline, ""):
        if _is_end(line):
            break
        if line.startswith("/"):
            commands.run(line.strip())
        elif line.strip():
            tell_cut(_ask(client, conversation, line.strip()))


def _talk(client: Client, conversation: Conversation, keyboard: Keyboard) -> None:
    """Talks with a person. Neither Ctrl-C during an answer nor a failed call ends the chat."""
    commands = SlashCommands(conversation)
    last: Generation | None = None
    while (line := _read(keyboard, last)) is not None:
        try:
            if line.startswith("/"):
                commands.run(line.strip())
            elif line.strip():
                last = None
                last = _ask(client, conversation, line.strip())
                tell_cut(last)
        except KeyboardInterrupt:
            click.secho("stopped", err=True, dim=True)
        except DohertyError as error:
            tell(failure(error))


def _read(keyboard: Keyboard, last: Generation | None) -> str | None:
    """The next line; None to leave."""
    with suppress(EOFError, KeyboardInterrupt):
        line = keyboard.read(_prompt(last))
        return None if _is_end(line) else line
    click.echo(err=True)
    return None


def _is_end(line: str) -> bool:
    return line.strip() in (":q", "/quit")


def _prompt(last: Generation | None) -> str:
    """The prompt, with the speed of the last answer."""
    pace = ", ".join(speed(last)) if last else ""
    return f"{click.style(pace, dim=True)} > " if pace else "> "


def _ask(client: Client, conversation: Conversation, question: str) -> Generation:
    """Shows the next answer, and adds the question and what was received to the conversation.

    A question without any answer is not added: many chat templates refuse two questions in a row.
    """
    stream: GenerationStream | None = None
    asked = Message("user", question)
    try:
        with client.stream_generate([*conversation.turns, asked], system=conversation.system) as stream:
            return show(stream, live=True)
    finally:
        if stream is not None and stream.text:
            conversation.turns += (asked, Message("assistant", stream.text))

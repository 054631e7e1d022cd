"""The slash commands of a chat."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from doherty.cli._conversation import Conversation

if TYPE_CHECKING:
    from collections.abc import Callable

HELP: Final = """\
/system [TEXT]  show the instructions to the model, or set them; "/system -" leaves them to the deployment
/save FILE      write the conversation into a .md or .json file
/clear, /new    begin a new conversation; the instructions stay
/help           show this
/quit, :q       leave; so do Ctrl-C and Ctrl-D
Ctrl-C stops an answer; what there is of it stays in the conversation. A question that begins with a slash needs a
space before it."""


class SlashCommands:
    """Runs the commands of one chat. They print to stderr, because stdout has the answers."""

    def __init__(self, conversation: Conversation) -> None:
        """They read and change `conversation`."""
        self._conversation = conversation
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/system": self._system,
            "/save": self._save,
            "/clear": self._clear,
            "/new": self._clear,
            "/help": lambda _: click.echo(HELP, err=True),
        }

    def run(self, line: str) -> None:
        """Runs a line that begins with a slash."""
        name, _, argument = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            click.echo(f"There is no {name}; /help lists what there is.", err=True)
        else:
            command(argument.strip())

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "-" else text
        system = self._conversation.system
        click.echo("The instructions are the deployment's." if system is None else f"Instructions: {system}", err=True)

    def _clear(self, _: str) -> None:
        self._conversation.turns.clear()
        click.echo("A new conversation.", err=True)

    def _save(self, name: str) -> None:
        if not name:
            click.echo("Into which file? /save FILE", err=True)
            return
        try:
            path = Path(name).expanduser()
        except RuntimeError:
            click.echo(f"Not saved: there is no home folder for {name}", err=True)
            return
        if path.exists() and path not in self._saved:
            click.echo(f"{path} is there already and was not saved by this chat; choose another name.", err=True)
            return
        try:
            self._conversation.save(path)
        except (OSError, ValueError) as error:
            click.echo(f"Not saved: {error}", err=True)
            return
        self._saved.add(path)
        click.echo(f"Saved {len(self._conversation.turns)} messages into {path}.", err=True)

"""The slash commands of a chat."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from doherty.cli._conversation import Conversation

if TYPE_CHECKING:
    from collections.abc import Callable

HELP: Final = """\
/set NAME VALUE  set temperature, top_p, max_output_tokens or seed; "-" leaves it to the deployment; /set shows them
/system [TEXT]   show the instructions to the model, or set them; "/system -" leaves them to the deployment
/retry           ask the last question again, for another answer
/edit            change the last question in $EDITOR, and ask it in place of the old one
/save FILE       write the conversation into a .md or .json file
/load FILE       go on with the conversation in a .json file
/clear, /new     begin a new conversation; the instructions and what was set stay
/help            show this
/quit, :q        leave; so do Ctrl-C and Ctrl-D
Ctrl-C stops an answer; what there is of it stays in the conversation. A question may have several lines if they are
pasted, or stand between two lines of \"\"\". A question that begins with a slash needs a space before it."""

_SETTINGS: Final[dict[str, "click.ParamType[float]"]] = {
    "temperature": click.FLOAT,
    "top_p": click.FLOAT,
    "max_output_tokens": click.IntRange(min=1),
    "seed": click.IntRange(min=0, max=2**64 - 1),
}
"""The parameters that /set can set. The server checks their ranges with the next question."""

_DEPLOYMENTS: Final = "is the deployment's"


class SlashCommands:
    """Runs the commands of one chat. They print to stderr, because stdout has the answers."""

    def __init__(self, conversation: Conversation) -> None:
        """The commands read and change `conversation`."""
        self._conversation = conversation
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], str | None]] = {
            "/set": self._set,
            "/system": self._system,
            "/retry": self._retry,
            "/edit": self._edit,
            "/save": self._save,
            "/load": self._load,
            "/clear": self._clear,
            "/new": self._clear,
            "/help": self._help,
        }

    def run(self, line: str) -> str | None:
        """Runs a line that begins with a slash, and returns the question that it asks, if it does."""
        name, _, argument = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            _say(f"There is no {name}; /help lists what there is.")
            return None
        return command(argument.strip())

    def _help(self, _: str) -> None:
        _say(HELP)

    def _set(self, argument: str) -> None:
        name, _, value = argument.partition(" ")
        parameters = self._conversation.parameters
        if name and name not in _SETTINGS:
            _say(f"There is no {name} to set, only {', '.join(_SETTINGS)}.")
        elif not value:
            for shown in [name] if name else _SETTINGS:
                _say(f"{shown} {parameters.get(shown, _DEPLOYMENTS)}")
        elif value == "-":
            parameters.pop(name, None)
            _say(f"{name} {_DEPLOYMENTS}")
        else:
            try:
                parameters[name] = _SETTINGS[name].convert(value.strip(), None, None)
            except click.BadParameter as error:
                _say(f"{name} stays as it is: {error.message}")
            else:
                _say(f"{name} {parameters[name]}")

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = None if text == "-" else text
        system = self._conversation.system
        _say("The instructions are the deployment's." if system is None else f"Instructions: {system}")

    def _retry(self, _: str) -> str | None:
        question = self._conversation.last_question
        if question is None:
            _say("There is no question yet.")
        else:
            self._conversation.take_back()
        return question

    def _edit(self, _: str) -> str | None:
        if not sys.stdin.isatty():
            _say("/edit needs a terminal.")
            return None
        try:
            edited = click.edit(self._conversation.last_question or "", extension=".md")
        except click.ClickException as error:
            _say(f"Nothing is changed: {error.message}")
            return None
        if edited is None or not edited.strip():
            _say("Nothing is changed.")
            return None
        self._conversation.take_back()
        _say(edited.strip())
        return edited.strip()

    def _clear(self, _: str) -> None:
        self._conversation.clear()
        _say("A new conversation.")

    def _save(self, name: str) -> None:
        path = _path(name, "Into which file? /save FILE")
        if path is None:
            return
        if path.exists() and path not in self._saved:
            _say(f"{path} already exists and was not saved by this chat; choose another name.")
            return
        try:
            self._conversation.save(path)
        except (OSError, ValueError) as error:
            _say(f"Not saved: {error}")
            return
        self._saved.add(path)
        _say(f"Saved {len(self._conversation.turns)} messages into {path}.")

    def _load(self, name: str) -> None:
        path = _path(name, "From which file? /load FILE")
        if path is None:
            return
        try:
            self._conversation.load(path)
        except (OSError, ValueError) as error:
            _say(f"Not loaded: {error}")
            return
        _say(f"Loaded {len(self._conversation.turns)} messages from {path}.")


def _path(name: str, question: str) -> Path | None:
    """Returns the path that was typed. If it is not a path, prints this."""
    if not name:
        _say(question)
        return None
    try:
        return Path(name).expanduser()
    except RuntimeError:
        _say(f"There is no home folder for {name}.")
        return None


def _say(text: str) -> None:
    click.echo(text, err=True)

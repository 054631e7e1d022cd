"""The prompt of `generate` and `count`: an argument, stdin, and a file of messages."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from pathlib import Path
from threading import Timer
from typing import Any, Final

import click

from doherty import Message
from doherty.cli._conversation import read_messages

_Callback = Callable[..., Any]

_PATIENCE_SECONDS: Final = 2.0


def prompt_options(callback: _Callback) -> _Callback:
    """Adds the options and the argument for a prompt to a command, which receives it as `prompt`."""

    @wraps(callback)
    def with_prompt(*arguments: Any, prompt: str | None, messages: list[Message] | None, **rest: Any) -> Any:
        return callback(*arguments, prompt=_read_prompt(prompt, messages), **rest)

    decorated: _Callback = with_prompt
    for option in (
        click.option(
            "--messages",
            callback=_read_messages,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A JSON file with the conversation before the prompt, as written by /save in chat.",
        ),
        click.option("--system", help="The instructions to the model."),
        click.argument("prompt", required=False),
    ):
        decorated = option(decorated)
    return decorated


def _read_messages(context: click.Context, parameter: click.Parameter, path: Path | None) -> list[Message] | None:
    if path is None:
        return None
    try:
        return read_messages(path)
    except (OSError, ValueError) as error:
        raise click.BadParameter(str(error), ctx=context, param=parameter) from error


def _read_prompt(argument: str | None, messages: list[Message] | None) -> str | list[Message]:
    """Returns the argument followed by stdin, as the next message if there is a conversation."""
    text = _join(argument)
    if messages is not None:
        return [*messages, Message("user", text)] if text else messages
    if not text:
        raise click.UsageError("There is no prompt: give one, or pipe one in.")
    return text


def _join(argument: str | None) -> str:
    if argument is not None and not argument.strip():
        raise click.UsageError("The prompt is empty.")
    if argument == "-":
        return _read_stdin()
    # Only "-" reads a terminal: otherwise, a command without a pipe would seem to hang.
    with _hint() if argument else nullcontext():
        piped = "" if sys.stdin is not None and sys.stdin.isatty() else _read_stdin()
    return "\n\n".join(filter(None, (argument, piped)))


@contextmanager
def _hint() -> Iterator[None]:
    """Prints a hint if the command waits for a pipe that nobody writes to or closes."""
    hint = "doherty: reading the rest of the prompt from stdin; '< /dev/null' leaves it out"
    timer = Timer(_PATIENCE_SECONDS, lambda: click.echo(hint, err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read_stdin() -> str:
    """Returns the text from stdin; "" if it is only white space, or stdin is closed."""
    if sys.stdin is None:
        return ""
    try:
        piped = sys.stdin.buffer.read().decode()
    except UnicodeError as error:
        raise click.UsageError(f"The prompt on stdin is not UTF-8: {error}.") from error
    return piped if piped.strip() else ""

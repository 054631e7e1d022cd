"""Reads what a person types at a terminal."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.filters import Condition
from prompt_toolkit.output import create_output
from prompt_toolkit.output.vt100 import Vt100_Output

from doherty.cli._history import ChatHistory

if TYPE_CHECKING:
    from types import FrameType

_PROMPT: Final = "> "
_CONTINUATION: Final = ". "
_NUDGE_SECONDS: Final = 0.2
_QUOTES: Final = '"""'


class Keyboard:
    """Reads what a person types: one line, or several lines that are pasted or are between triple quotes."""

    def __init__(self, history: Path | None) -> None:
        """`history` is the file to load the history from and to save it to; None keeps no history."""
        self._history = ChatHistory(history)
        self._session = None if os.environ.get("TERM") == "dumb" else _make_session(self._history)

    def read(self) -> str:
        """Returns the next input.

        Raises:
            EOFError: The person typed Ctrl-D.
            KeyboardInterrupt: The person typed Ctrl-C.
        """
        if self._session is not None:
            return self._session.prompt(_PROMPT)
        text = read_entry(_read_plainly)
        self._history.store_string(text)
        return text


def read_entry(read_line: Callable[[str], str]) -> str:
    """Reads a line, or all lines up to the end of a block of triple quotes, or of the input.

    Args:
        read_line: Reads a line after a prompt; raises EOFError if there is none.

    Raises:
        EOFError: There is no line.
    """
    text = read_line(_PROMPT)
    with suppress(EOFError):
        while _is_open_block(text):
            text += "\n" + read_line(_CONTINUATION)
    return text


def unquoted(text: str) -> str | None:
    """Returns the text between triple quotes; None if there are none."""
    text = text.strip()
    if not text.startswith(_QUOTES):
        return None
    return text.removeprefix(_QUOTES).removesuffix(_QUOTES).strip()


def _is_open_block(text: str) -> bool:
    text = text.strip()
    return text.startswith(_QUOTES) and not text.removeprefix(_QUOTES).endswith(_QUOTES)


def _make_session(history: ChatHistory) -> "PromptSession[str]":
    output = create_output(always_prefer_tty=True)
    if isinstance(output, Vt100_Output):
        # Nothing is shown below the line, so do not ask for the cursor's position: a late reply would become input.
        output.enable_cpr = False
    session: PromptSession[str] = PromptSession(
        history=history,
        output=output,
        reserve_space_for_menu=0,
        # Enter ends a line, but not a block.
        multiline=Condition(lambda: _is_open_block(session.default_buffer.text)),
        prompt_continuation=_CONTINUATION,
    )
    return session


def _read_plainly(prompt: str) -> str:
    """Reads a line from a terminal that cannot move its cursor."""
    click.echo(prompt, nl=False, err=not sys.stdout.isatty())
    with _nudged():
        line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


@contextmanager
def _nudged() -> Iterator[None]:
    """Keeps a Ctrl-C from being lost before a wait.

    Python only records a signal, and handles it when the current wait is interrupted. A signal that arrives just before
    a wait begins does not interrupt it, so a timer interrupts the wait regularly.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    # The handler is not removed: another thread may receive the last signal just after the timer has stopped, and
    # without a handler, that signal ends the program.
    signal.signal(signal.SIGALRM, _do_nothing)
    signal.setitimer(signal.ITIMER_REAL, _NUDGE_SECONDS, _NUDGE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _do_nothing(number: int, frame: "FrameType | None") -> None:
    """A signal handler that only interrupts a wait."""

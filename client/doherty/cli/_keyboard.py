"""Reading lines from a person, with editing and a history."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from types import FrameType

_KEPT_LINES: Final = 1000
_NUDGE_SECONDS: Final = 0.2
_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


class Keyboard:
    """Reads lines."""

    def __init__(self, history: Path | None) -> None:
        """`history` is the file to load the history from and to save it to; None keeps no history."""
        self._history = history
        try:
            self._readline: Any = import_module("readline")
        except ModuleNotFoundError:  # Windows has line editing of its own
            self._readline = None
        self._recall()

    def read(self, prompt: str) -> str:
        """The next line.

        Raises:
            EOFError: The person typed Ctrl-D.
            KeyboardInterrupt: The person typed Ctrl-C.
        """
        if not sys.stdout.isatty():
            click.echo(prompt, nl=False, err=True)
            prompt = ""
        with _nudged():
            line = input(prompt if self._readline is None else _measurable(prompt))
        self._keep(line)
        return line

    def _recall(self) -> None:
        if self._readline is None or self._history is None:
            return
        self._readline.clear_history()
        try:
            lines = self._history.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self._give_history_up(error)
            return
        for line in lines[-_KEPT_LINES:]:
            self._readline.add_history(line)
        if len(lines) > 2 * _KEPT_LINES:
            self._write("w", lines[-_KEPT_LINES:])

    def _keep(self, line: str) -> None:
        if line.strip():
            self._write("a", [line])

    def _write(self, mode: str, lines: list[str]) -> None:
        if self._history is None:
            return
        try:
            self._history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._history, mode, encoding="utf-8", opener=_private) as file:
                file.writelines(f"{line}\n" for line in lines)
        except (OSError, UnicodeError) as error:
            self._give_history_up(error)

    def _give_history_up(self, error: Exception) -> None:
        click.secho(f"The history is not kept: {error}", err=True, dim=True)
        self._history = None


def history_file() -> Path | None:
    """The state folder of the freedesktop.org specification.

    None if there is no home folder.
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        return (state if state.is_absolute() else Path.home() / ".local/state") / "doherty/chat_history"
    except RuntimeError:
        return None


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner can read, because questions are private."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _measurable(prompt: str) -> str:
    """Marks for readline the parts of the prompt that take no space on the screen."""
    return _STYLE.sub("\x01\\g<0>\x02", prompt)


@contextmanager
def _nudged() -> Iterator[None]:
    """Keeps a Ctrl-C from being lost between two waits of `input`.

    Python takes note of a signal at once, and acts on it when a wait is interrupted; one that comes just before a wait
    begins does not interrupt it. So the wait is interrupted every now and then.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    former = signal.signal(signal.SIGALRM, _do_nothing)
    signal.setitimer(signal.ITIMER_REAL, _NUDGE_SECONDS, _NUDGE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _do_nothing(number: int, frame: "FrameType | None") -> None:
    """What interrupts a wait and nothing else."""

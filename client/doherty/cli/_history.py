"""The questions of earlier chats, in a file."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click
from prompt_toolkit.history import History

_KEPT: Final = 1000
_ESCAPED: Final = re.compile(r"\\([\\n])")


class ChatHistory(History):
    """Keeps each question as a line of a file that only its owner can read."""

    def __init__(self, path: Path | None) -> None:
        """`path` is the file to load from and to save to; None keeps no history."""
        super().__init__()
        self._path = path
        self._earlier = self._read()

    def load_history_strings(self) -> Iterable[str]:
        """Returns the questions of earlier chats, the newest first."""
        return reversed(self._earlier)

    def store_string(self, string: str) -> None:
        """Saves a question."""
        if string.strip():
            self._write("a", [string])

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            self._give_up(error)
            return []
        lines = [line for line in text.split("\n") if line]
        kept = [_ESCAPED.sub(lambda escaped: "\n" if escaped[1] == "n" else "\\", line) for line in lines[-_KEPT:]]
        if len(lines) > 2 * _KEPT:
            self._write("w", kept)
        return kept

    def _write(self, mode: str, entries: list[str]) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._path, mode, encoding="utf-8", opener=_open_private) as file:
                file.writelines(entry.replace("\\", r"\\").replace("\n", r"\n") + "\n" for entry in entries)
        except (OSError, UnicodeError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        click.secho(f"The history is not kept: {error}", err=True, dim=True)
        self._path = None


def history_file() -> Path | None:
    """Returns a file in the state folder (freedesktop.org specification); None if there is no home folder."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        return (state if state.is_absolute() else Path.home() / ".local/state") / "doherty/chat_history"
    except RuntimeError:
        return None


def _open_private(path: str, flags: int) -> int:
    """Opens a file that only its owner can read, because questions are private."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor

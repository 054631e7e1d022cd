"""Shows what a person sees of a program's output."""

import pyte
from pyte.modes import LNM

_KEPT_LINES = 10_000


class Screen:
    """The screen of a terminal, including the lines that have scrolled out of sight."""

    def __init__(self, rows: int, columns: int) -> None:
        self._columns = columns
        self._screen = pyte.HistoryScreen(columns, rows, history=_KEPT_LINES)
        self._screen.set_mode(LNM)  # a line feed also starts a line, as on real terminals
        self._stream = pyte.Stream(self._screen)

    @property
    def text(self) -> str:
        scrolled = ("".join(line[column].data for column in range(self._columns)) for line in self._screen.history.top)
        return "\n".join(line.rstrip() for line in (*scrolled, *self._screen.display)).rstrip("\n")

    def feed(self, output: str) -> None:
        self._stream.feed(output)

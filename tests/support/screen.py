"""A terminal's screen, as much of it as rich needs."""

import re

_PARTS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07]*\x07|(.)", re.DOTALL)


class Screen:
    """Where the characters of a program's output end up, those included that have scrolled out of sight."""

    def __init__(self, rows: int, columns: int) -> None:
        self._rows = rows
        self._columns = columns
        self._lines = [""]
        self._row = self._column = 0

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._lines)

    def feed(self, output: str) -> None:
        for argument, command, character in _PARTS.findall(output):
            if command:
                self._control(argument, command)
            elif character:
                self._put(character)

    def _control(self, argument: str, command: str) -> None:
        match command:
            case "A":
                # The cursor cannot leave the screen: what has scrolled away stays as it is.
                top = max(0, len(self._lines) - self._rows)
                self._row = max(top, self._row - int(argument or 1))
            case "K":
                assert argument == "2", argument
                self._lines[self._row] = ""
            case "m" | "h" | "l":
                pass
            case _:
                raise AssertionError(f"the screen does not know {argument}{command}")

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._lines):
                self._lines.append("")
        elif character.isprintable():
            if self._column == self._columns:
                self._put("\n")
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

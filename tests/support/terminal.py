"""A program on a terminal of its own."""

import codecs
import os
import pty
import re
import select
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from support.command import SECONDS, environment
from support.screen import Screen

_CONTROL = re.compile(r"\r|\x1b(\[[0-9;?]*([A-Za-z]|$)|$)")
"""Also an escape sequence whose end has not come yet."""


class Terminal:
    """What a person at the terminal of a program sees and types."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int, rows: int, columns: int) -> None:
        self.process = process
        self._drawn = Screen(rows, columns)
        self._drawn_up_to = 0
        self._raw = ""
        self._controller = controller
        self._seen = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    @property
    def output(self) -> str:
        """All that the program wrote so far."""
        return self._raw

    @property
    def screen(self) -> str:
        """All that was shown so far, without colours and the like."""
        return _CONTROL.sub("", self._raw)

    @property
    def lines(self) -> list[str]:
        """What a person sees, line by line, and could scroll back to."""
        self._drawn.feed(self._raw[self._drawn_up_to :])
        self._drawn_up_to = len(self._raw)
        return self._drawn.text.splitlines()

    def see(self, text: str, *, times: int = 1) -> None:
        """Waits until a person sees `text` so many times."""
        while "\n".join(self.lines).count(text) < times:
            assert self._read(), f"the program ended without {text!r}: {self.lines!r}"

    def see_below(self, line: str) -> None:
        """Waits until there is something below a line."""
        while line not in self.lines[:-1]:
            assert self._read(), f"the program ended with nothing below {line!r}: {self.lines!r}"

    def see_prompt(self) -> None:
        """Waits until the last line is a prompt at which nothing is typed."""
        while self.lines[-1:] != [">"]:
            assert self._read(), f"the program ended without a prompt: {self.lines!r}"

    def type(self, text: str) -> None:
        """Types; "\\x03" is Ctrl-C and "\\x04" is Ctrl-D."""
        os.write(self._controller, text.encode())

    def read_until(self, text: str) -> str:
        """Waits until `text` is on the screen behind what was read before, and returns what came up to its end."""
        while (at := self.screen.find(text, self._seen)) < 0:
            assert self._read(), f"the program ended without {text!r}: {self.screen!r}"
        begin, self._seen = self._seen, at + len(text)
        return self.screen[begin : self._seen]

    def wait(self) -> int:
        """Reads to the end, and returns the exit code."""
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        readable, _, _ = select.select([self._controller], [], [], SECONDS)
        assert readable, f"nothing more came: {self.screen!r}"
        try:
            read = os.read(self._controller, 65536)
        except OSError:  # Linux's way to say that nobody is at the other end any more
            return False
        self._raw += self._decode(read)
        return bool(read)


@contextmanager
def on_a_terminal(*command: str, rows: int = 24, columns: int = 80, **more: str) -> Iterator[Terminal]:
    """Runs a program whose controlling terminal is a new one; `more` goes into its environment."""
    controller, ours = pty.openpty()
    termios.tcsetwinsize(ours, (rows, columns))
    # The first terminal that the leader of a session opens becomes its controlling one, without which Ctrl-C is a
    # character like any other.
    shell = ("sh", "-c", 'exec "$@" <"$0"', os.ttyname(ours), *command)
    process = subprocess.Popen(
        shell, start_new_session=True, stdin=ours, stdout=ours, stderr=ours, env=environment(**more)
    )
    os.close(ours)
    try:
        yield Terminal(process, controller, rows, columns)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        os.close(controller)

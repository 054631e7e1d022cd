"""Runs a program on a terminal of its own."""

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
"""Also matches an incomplete escape sequence at the end."""


class Terminal:
    """The terminal of a program: what a person sees and types."""

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
        """Returns everything that the program has written so far."""
        return self._raw

    @property
    def screen(self) -> str:
        """Returns everything that was shown so far, without escape sequences."""
        return _CONTROL.sub("", self._raw)

    @property
    def lines(self) -> list[str]:
        """Returns the lines of the screen, including those that have scrolled out of sight."""
        self._drawn.feed(self._raw[self._drawn_up_to :])
        self._drawn_up_to = len(self._raw)
        return self._drawn.text.splitlines()

    def see(self, text: str, *, times: int = 1) -> None:
        """Waits until the screen shows `text` a number of times."""
        while "\n".join(self.lines).count(text) < times:
            assert self._read(), f"the program ended without {text!r}: {self.lines!r}"

    def see_below(self, line: str) -> None:
        """Waits until the screen shows something below a line."""
        while line not in self.lines[:-1]:
            assert self._read(), f"the program ended with nothing below {line!r}: {self.lines!r}"

    def see_prompt(self) -> None:
        """Waits until the last line is an empty prompt."""
        while self.lines[-1:] != [">"]:
            assert self._read(), f"the program ended without a prompt: {self.lines!r}"

    def type(self, text: str) -> None:
        r"""Types a text; "\\x03" is Ctrl-C and "\\x04" is Ctrl-D."""
        os.write(self._controller, text.encode())

    def read_until(self, text: str) -> str:
        """Waits until `text` appears after everything that was read before.

        Returns the output up to the end of `text`.
        """
        while (at := self.screen.find(text, self._seen)) < 0:
            assert self._read(), f"the program ended without {text!r}: {self.screen!r}"
        begin, self._seen = self._seen, at + len(text)
        return self.screen[begin : self._seen]

    def wait(self) -> int:
        """Reads to the end of the output, and returns the exit code."""
        while self._read():
            pass
        return self.process.wait(SECONDS)

    def _read(self) -> bool:
        readable, _, _ = select.select([self._controller], [], [], SECONDS)
        assert readable, f"the program wrote nothing more within the time limit: {self.screen!r}"
        try:
            read = os.read(self._controller, 65536)
        except OSError:  # Linux reports the end of the program in this way
            return False
        self._raw += self._decode(read)
        return bool(read)


@contextmanager
def on_a_terminal(*command: str, rows: int = 24, columns: int = 80, **more: str) -> Iterator[Terminal]:
    """Runs a program whose controlling terminal is a new one; `more` is added to its environment."""
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

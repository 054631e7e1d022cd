"""Turns off the terminal's echo while the command draws on it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


@contextmanager
def silenced() -> Iterator[None]:
    """Prevents the terminal from showing keys that are typed during the block. The next prompt receives them.

    A key that is shown moves the cursor; so does the ^C of Ctrl-C. The command would then redraw its lines at the wrong
    place, and some lines would appear twice.
    """
    try:
        termios: Any = import_module("termios")
    except ModuleNotFoundError:  # Windows shows no keys by itself
        yield
        return
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    changed = list(before)
    changed[3] &= ~termios.ECHO  # the local modes
    termios.tcsetattr(terminal, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, before)

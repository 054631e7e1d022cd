"""`doherty chat` on a terminal."""

import re

from support.command import DOHERTY
from support.server import ServerProcess
from support.serving import Serving
from support.terminal import Terminal


def chat_with(server: ServerProcess | Serving, *flags: str) -> tuple[str, ...]:
    """Returns the command line of a chat with a server."""
    return (*DOHERTY, "chat", *flags, "--target", server.target)


def ask(terminal: Terminal, question: str) -> None:
    """Types a question, and reads past the terminal's echo of it."""
    terminal.type(question + "\n")
    terminal.read_until(question + "\n")


def answer_on_screen(terminal: Terminal, question: str) -> str:
    """Returns the text between a question and the figures of its answer."""
    _, asked, behind = "\n".join(terminal.lines).partition(f"> {question}\n")
    assert asked
    shown = re.split(r"\n(?:stopped|\d+ tokens, .*)\n", behind)
    assert len(shown) > 1
    return shown[0]

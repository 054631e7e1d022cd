"""Shows an answer on the terminal."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import click

from doherty import (
    Delta,
    FinishReason,
    Generation,
    GenerationStream,
    ServerLost,
    StreamResumed,
    StreamStarted,
)
from doherty.cli._console import make_console
from doherty.cli._terminal import brief, harmless


class _Display(Protocol):
    """The place where an answer is shown."""

    def write(self, text: str) -> None:
        """Appends a part of the answer."""

    def set_status(self, status: str) -> None:
        """Shows what the command is waiting for; "" means the next part of the answer."""


def show(stream: GenerationStream, *, live: bool = False) -> Generation:
    """Writes an answer to stdout while it is received, and ends the line even if the answer is cut off.

    On a terminal, it also reports that the server was lost and that the client looks for another one.

    Args:
        stream: The answer.
        live: Whether to show it as Markdown, where stdout is a terminal that can move its cursor.
    """
    with _open_display(live=live) as display:
        for event in stream.events():
            match event:
                case Delta():
                    display.write(event.text)
                case ServerLost():
                    display.set_status(f"{event.target} was lost; looking for a server that goes on")
                case StreamStarted() | StreamResumed():
                    display.set_status("")
    return stream.result()


def _open_display(*, live: bool) -> AbstractContextManager[_Display]:
    console = make_console()
    if live and console.is_terminal and not console.is_dumb_terminal:
        from doherty.cli._live import LiveMarkdown  # noqa: PLC0415 - it takes a tenth of a second

        return LiveMarkdown(console, "waiting for the server")
    return _plain_display()


@contextmanager
def _plain_display() -> Iterator[_Display]:
    display = _PlainDisplay()
    try:
        yield display
    finally:
        display.end_line()


class _PlainDisplay:
    """Writes the text unchanged, except that a terminal gets no control characters."""

    def __init__(self) -> None:
        self._clean = harmless if sys.stdout.isatty() else str
        self._is_within_line = False

    def write(self, text: str) -> None:
        if text:
            self._is_within_line = True
            click.echo(self._clean(text), nl=False)

    def set_status(self, status: str) -> None:
        if status and sys.stderr.isatty():
            if sys.stdout.isatty():
                self.end_line()
            click.secho(brief(status), err=True, dim=True)

    def end_line(self) -> None:
        if self._is_within_line:
            click.echo()
        self._is_within_line = False


def tell_end(generation: Generation) -> None:
    """Prints the speed of an answer to stderr if that is a terminal, otherwise only whether the answer was cut off."""
    if sys.stderr.isatty():
        click.secho(f"{pace(generation)}, {generation.finish_reason}", err=True, dim=True)
    else:
        tell_cut(generation)


def tell_cut(generation: Generation) -> None:
    """Prints to stderr if an answer was cut off."""
    if generation.finish_reason is not FinishReason.STOP:
        click.echo(f"doherty: the answer was cut off ({generation.finish_reason})", err=True)


def pace(generation: Generation) -> str:
    """The length and speed of an answer."""
    return ", ".join((f"{generation.usage.output_tokens} tokens", *speed(generation)))


def speed(generation: Generation) -> list[str]:
    """The speed of an answer, as far as the server reports it."""
    timings = generation.timings
    parts = []
    if timings.time_to_first_token is not None:
        parts.append(f"first after {timings.time_to_first_token * 1000:.0f} ms")
    if timings.time_per_output_token:
        parts.append(f"{1 / timings.time_per_output_token:.0f} tokens/s")
    return parts

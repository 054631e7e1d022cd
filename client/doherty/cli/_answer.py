"""Shows an answer on the terminal."""

import sys

import click

from doherty import FinishReason, Generation, GenerationStream
from doherty.cli._console import make_console
from doherty.cli._terminal import harmless


def show(stream: GenerationStream, *, live: bool = False) -> Generation:
    """Writes an answer to stdout while it comes in, and ends the line even when the answer is cut off.

    Args:
        stream: The answer.
        live: Whether to show it as Markdown, where stdout is a terminal that can move its cursor.
    """
    console = make_console()
    if live and console.is_terminal and not console.is_dumb_terminal:
        from doherty.cli._live import LiveMarkdown  # noqa: PLC0415 - it takes a tenth of a second

        with LiveMarkdown(console) as display:
            for text in stream.text_stream:
                display.write(harmless(text))
    else:
        _write(stream)
    return stream.result()


def _write(stream: GenerationStream) -> None:
    clean = harmless if sys.stdout.isatty() else str
    shown = False
    try:
        for text in stream.text_stream:
            shown = True
            click.echo(clean(text), nl=False)
    finally:
        if shown:
            click.echo()


def tell_end(generation: Generation) -> None:
    """Prints on stderr how fast an answer was, if that is a terminal; otherwise only whether the answer was cut off."""
    if sys.stderr.isatty():
        click.secho(f"{pace(generation)}, {generation.finish_reason}", err=True, dim=True)
    else:
        tell_cut(generation)


def tell_cut(generation: Generation) -> None:
    """Prints on stderr that an answer was cut off, if it was."""
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

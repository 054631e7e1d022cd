"""An answer on its way to the terminal."""

import sys

import click

from doherty._core._results import FinishReason, Generation
from doherty._sync._stream import GenerationStream


def show(stream: GenerationStream) -> Generation:
    """Writes an answer to stdout while it comes in, and ends the line even when the answer is cut off."""
    shown = False
    try:
        for text in stream.text_stream:
            shown = True
            click.echo(text, nl=False)
    finally:
        if shown:
            click.echo()
    return stream.result()


def tell_end(generation: Generation) -> None:
    """Says on stderr how an answer went, if somebody looks at it; else only that it was cut off, which text hides."""
    if sys.stderr.isatty():
        click.secho(pace(generation), err=True, dim=True)
    elif generation.finish_reason is not FinishReason.STOP:
        click.echo(f"doherty: the answer was cut off ({generation.finish_reason})", err=True)


def pace(generation: Generation) -> str:
    """How long an answer was, how fast, and why it ended."""
    timings = generation.timings
    parts = [f"{generation.usage.output_tokens} tokens"]
    if timings.time_to_first_token is not None:
        parts.append(f"first after {timings.time_to_first_token * 1000:.0f} ms")
    if timings.time_per_output_token:
        parts.append(f"{1 / timings.time_per_output_token:.0f} tokens/s")
    return ", ".join((*parts, generation.finish_reason))

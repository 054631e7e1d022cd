"""The exit codes of the command, and its last line on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from doherty.cli._terminal import brief, wants_color

FAILED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
NOT_SERVING: Final = 4
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""The exit code that shells report for a program that SIGPIPE ended."""

EPILOG: Final = """\
\b
Exit codes:
  0    done
  1    the call failed, and would again
  2    the command line is wrong, or an extra is not installed
  3    the server was not reached, is not ready, is full or took too long
  4    health: the server answers, but does not serve
  130  interrupted by Ctrl-C
  141  the reader of the output went away (a broken pipe)
"""


class Failed(click.ClickException):
    """Ends the command because a call failed."""

    exit_code = FAILED


class Missing(click.ClickException):
    """Ends the command because a package is missing. The message says how to install it."""

    exit_code = USAGE


class Unavailable(click.ClickException):
    """Ends the command because the server cannot be used at the moment."""

    exit_code = UNAVAILABLE


def tell(error: click.ClickException) -> None:
    """Writes one line on stderr that says what is wrong and what to do."""
    context = getattr(error, "ctx", None)
    hint = f" See '{context.command_path} --help'." if context else ""
    sentence = brief(error.format_message())
    name = click.style("doherty:", fg="red", bold=True)
    click.echo(f"{name} {sentence}{hint}", err=True, color=wants_color())


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """Ends the command silently when its output is no longer read, as in `doherty generate ... | head -1`.

    Raises:
        click.exceptions.Exit: A write found the pipe broken.
    """
    try:
        yield
    except BrokenPipeError as error:
        # Python flushes buffered output when it exits, which would fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            os.dup2(nowhere, stream.fileno())
        raise click.exceptions.Exit(BROKEN_PIPE) from error

"""How the command ends."""

from typing import Final

import click

from doherty.cli._terminal import brief

FAILED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 3
NOT_SERVING: Final = 4
INTERRUPTED: Final = 130

EPILOG: Final = """\
\b
Exit codes:
  0    done
  1    the call failed, and would again
  2    the command line is wrong, or an extra is not installed
  3    the server was not reached, is not ready, is full or took too long
  4    health: the server answers, but does not serve
  130  interrupted by Ctrl-C
"""


class Failed(click.ClickException):
    """Ends the command with what failed."""

    exit_code = FAILED


class Missing(click.ClickException):
    """Ends the command with what is to be installed."""

    exit_code = USAGE


class Unavailable(click.ClickException):
    """Ends the command with why the server cannot be used now."""

    exit_code = UNAVAILABLE


def tell(error: click.ClickException) -> None:
    """Writes one line on stderr that says what is wrong and what to do."""
    context = getattr(error, "ctx", None)
    hint = f" See '{context.command_path} --help'." if context else ""
    sentence = brief(error.format_message())
    click.echo(f"{click.style('doherty:', fg='red', bold=True)} {sentence}{hint}", err=True)

"""The command `doherty`."""

import sys
from typing import Final

from doherty_extras import install_command

__all__ = ["QUESTIONS", "main"]

QUESTIONS: Final = (
    "What atoms are in water?",
    "Which F1 team won in 2011?",
    "What is 12 * 9?",
    "Python function to print odd numbers between 1 and 10. Answer with code only.",
    "What is the capital of California?",
    "What's the tallest building in new york city?",
    "What year did the European Union form?",
    "How old was Geoff Hinton in 2022?",
    "Where is Berkeley?",
    "Are greyhounds or poodles faster?",
)
"""The ten questions of the reference benchmark."""

_INTERRUPTED = 130


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    try:
        try:
            import rich as _  # noqa: F401, PLC0415 - an extra of the SDK, so are the imports of `_group`

            from doherty.cli._group import run  # noqa: PLC0415

            sys.exit(run())  # it imports the command
        except ModuleNotFoundError as error:
            if error.name not in ("click", "prompt_toolkit", "rich"):
                raise
            sys.stderr.write(f"doherty: the command needs click, prompt_toolkit and rich: {install_command('cli')}\n")
            sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)

"""The command `doherty`."""

import sys

from doherty_extras import install_command

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

"""How to install an extra of this distribution; all packages of the distribution take the command from here."""

import shlex
import sys

__all__ = ["install_command"]


def install_command(extra: str) -> str:
    """The shell command that adds an extra to the environment that runs this code.

    Doherty is not on the public package index. The command works nevertheless: this code runs, so Doherty is installed,
    from a checkout or from a wheel, and pip keeps what is installed and adds only what the extra lists.
    """
    return shlex.join([sys.executable, "-m", "pip", "install", f"doherty[{extra}]"])

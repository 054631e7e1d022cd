"""The version of this server."""

from functools import cache
from importlib.metadata import version


@cache  # it is a file that is read and parsed, and GetModel tells it
def server_version() -> str:
    """The version of the installed distribution."""
    return version("doherty")

"""The version of the server."""

from functools import cache
from importlib.metadata import version


@cache  # `version` reads and parses a file, and every GetModel needs the result
def server_version() -> str:
    """Returns the version of the installed distribution."""
    return version("doherty")

"""The version of this server."""

from importlib.metadata import version


def server_version() -> str:
    """The version of the installed distribution."""
    return version("doherty")

"""The fixture of `doherty.testing`: a server for each test, which `Client()` finds."""

from doherty.testing.fixtures import doherty_server

__all__ = ["doherty_server"]

"""Fixtures for pytest: put `from doherty.testing.fixtures import doherty_server` into a conftest.py."""

from collections.abc import Iterator

import pytest

from doherty.testing import FakeServer

__all__ = ["doherty_server"]


@pytest.fixture
def doherty_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A fake server for one test. It is also the default target of all clients that the test creates."""
    with FakeServer() as server:
        monkeypatch.setenv("DOHERTY_TARGET", server.target)
        for name in ("DOHERTY_API_KEY", "DOHERTY_TLS_CA"):
            monkeypatch.delenv(name, raising=False)
        yield server

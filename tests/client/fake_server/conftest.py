"""A server of `doherty.testing`, and each client connected to it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from doherty.testing import FakeServer
from support.twins import Kind, Twin, open_twin


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as started:
        yield started


@pytest.fixture
async def twin(kind: Kind, server: FakeServer) -> AsyncIterator[Twin]:
    async with open_twin(kind, server.target, timeout=20) as client:
        yield client

"""Both clients, and both transports, for each test that asks for one."""

from collections.abc import AsyncIterator

import pytest

from support.server import ServerProcess
from support.twins import Kind, Twin, open_twin


@pytest.fixture(params=["Client", "AsyncClient", "multiplex"])
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
async def twin(kind: Kind, synthetic_server: ServerProcess) -> AsyncIterator[Twin]:
    async with open_twin(kind, synthetic_server.target) as client:
        yield client

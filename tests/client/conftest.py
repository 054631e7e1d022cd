"""Fixtures with both clients and both ways to send requests, and with servers for the tests of `doherty chat`."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.server import ServerProcess, start_server
from support.serving import Serving, answer, serve
from support.twins import Kind, Twin, open_twin


@pytest.fixture(params=["Client", "AsyncClient", "multiplex"])
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
async def twin(kind: Kind, synthetic_server: ServerProcess) -> AsyncIterator[Twin]:
    async with open_twin(kind, synthetic_server.target) as client:
        yield client


@pytest.fixture
def slow_server() -> Iterator[ServerProcess]:
    with start_server("--engine", "synthetic", "-o", "tokens_per_second=20") as server:
        yield server


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder in which `doherty chat` keeps its history."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def recorder() -> Iterator[Serving]:
    """Runs a server that keeps its requests, and always answers "fine"."""
    with serve(lambda _, __: iter(answer())) as serving:
        yield serving

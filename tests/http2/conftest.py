"""The servers that the tests of HTTP/2 attack."""

from collections.abc import Iterator

import pytest

from support.metrics import LISTEN
from support.server import ServerProcess, start_server

FLAGS = ("--engine", "synthetic", "-o", "tokens_per_second=2000", "-o", "context_tokens=20000")
LARGEST_MESSAGE = 17 << 20
ON_BOTH = ("--max-message-bytes", str(LARGEST_MESSAGE), "--transport")


@pytest.fixture(scope="session")
def http2_server() -> Iterator[ServerProcess]:
    """Runs a server on the transport `http2`. When the tests are over, it must not have logged an error of its own."""
    yield from _unharmed("http2")


@pytest.fixture(scope="session")
def grpcio_server() -> Iterator[ServerProcess]:
    """The same on the transport `grpcio`."""
    yield from _unharmed("grpcio")


@pytest.fixture(params=["grpcio", "http2"])
def server(request: pytest.FixtureRequest) -> ServerProcess:
    """Each of both servers in turn."""
    chosen: ServerProcess = request.getfixturevalue(f"{request.param}_server")
    return chosen


def _unharmed(transport: str) -> Iterator[ServerProcess]:
    with start_server(*FLAGS, *LISTEN, *ON_BOTH, transport) as server:
        yield server
        errors = [
            line for line in [*server.log, *server.read()] if line.get("level") == "error" or "Traceback" in str(line)
        ]
        assert not errors, "\n".join(map(str, errors))
        assert server.stop() == 0

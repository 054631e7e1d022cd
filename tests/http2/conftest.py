"""The server that the tests of HTTP/2 attack."""

from collections.abc import Iterator

import pytest

from support.server import ServerProcess, start_server


@pytest.fixture(scope="session")
def http2_server() -> Iterator[ServerProcess]:
    """A server on the transport `http2`, which must have had no error of its own when the tests are over."""
    with start_server("--engine", "synthetic", "--transport", "http2") as server:
        yield server
        errors = [line for line in server.read() if line.get("level") == "error" or "Traceback" in str(line)]
        assert not errors
        assert server.stop() == 0

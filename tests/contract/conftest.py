"""Fixtures with all engines. GPU engines run on fakes of their packages."""

from collections.abc import Iterator

import pytest

from support.server import ServerProcess
from support.wire import Caller, connect

SERVERS = {
    "llamacpp": "model_server",
    "pytorch": "pytorch_server",
    "synthetic": "synthetic_server",
    "tensorrt": "tensorrt_server",
    "vllm": "vllm_server",
}


@pytest.fixture(
    scope="module",
    params=["synthetic", "vllm", "tensorrt", "pytorch", pytest.param("llamacpp", marks=pytest.mark.model)],
)
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    server: ServerProcess = request.getfixturevalue(SERVERS[request.param])
    with connect(server.target) as connected:
        yield connected

"""What holds for every engine is tested with each of them, vLLM's on a stand-in for vLLM."""

from collections.abc import Iterator

import pytest

from support.server import ServerProcess
from support.wire import Caller, connect

SERVERS = {"llamacpp": "model_server", "synthetic": "synthetic_server", "vllm": "vllm_server"}


@pytest.fixture(scope="module", params=["synthetic", "vllm", pytest.param("llamacpp", marks=pytest.mark.model)])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    server: ServerProcess = request.getfixturevalue(SERVERS[request.param])
    with connect(server.target) as found:
        yield found

"""What holds for every engine is tested with two of them."""

from collections.abc import Iterator

import pytest

from support.server import ServerProcess
from support.wire import Caller, connect


@pytest.fixture(scope="module", params=["synthetic", pytest.param("llamacpp", marks=pytest.mark.model)])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    server: ServerProcess = request.getfixturevalue(
        "synthetic_server" if request.param == "synthetic" else "model_server"
    )
    with connect(server.target) as found:
        yield found

"""How large and how many things may be."""

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1 import model_pb2
from support.http2 import GREETING, Kind, raw_connection
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect

MAX_CONCURRENT_STREAMS = 3
MAX_HEADER_LIST_SIZE = 6
"""The numbers of two of HTTP/2's settings."""


def announced(server: ServerProcess) -> dict[int, int]:
    """The settings of HTTP/2 that the server tells a client."""
    with raw_connection(server.target) as connection:
        connection.send(GREETING)
        payload = next(one.payload for one in connection.frames() if one.kind == Kind.SETTINGS)
    pairs = (payload[at : at + 6] for at in range(0, len(payload), 6))
    return {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs}


def test_metadata_is_bounded_and_not_at_random(synthetic_server: ServerProcess) -> None:
    with connect(synthetic_server.target) as caller:

        def ends(size: int) -> grpc.StatusCode:
            metadata = (("x-large", "x" * size),)
            call: Any = caller.stub.GetModel.future(model_pb2.GetModelRequest(), timeout=SECONDS, metadata=metadata)
            code: grpc.StatusCode = call.code()
            return code

        assert {ends(12_000) for _ in range(30)} == {grpc.StatusCode.OK}
        assert {ends(17_000) for _ in range(5)} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert announced(synthetic_server)[MAX_HEADER_LIST_SIZE] == 16 << 10


def test_clients_are_told_how_many_calls_a_connection_may_have() -> None:
    with start_server("--engine", "synthetic", "--max-concurrent-streams", "2") as server:
        assert announced(server)[MAX_CONCURRENT_STREAMS] == 2
        with connect(server.target) as caller:  # whose library keeps to it, and lets the rest wait
            request = model_pb2.GetModelRequest()
            calls: list[Any] = [caller.stub.GetModel.future(request, timeout=SECONDS) for _ in range(500)]
            assert Counter(call.code() for call in calls) == {grpc.StatusCode.OK: 500}


@pytest.fixture
def few_files() -> Iterator[None]:
    """What this process starts may have 256 files open, unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_there_are_files_for_all_connections() -> None:
    with start_server("--engine", "synthetic", "--max-connections", "300") as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) > 300

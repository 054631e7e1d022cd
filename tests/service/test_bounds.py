"""Limits of sizes and numbers."""

import resource
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from doherty.v1 import model_pb2
from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, RawConnection, frame, header_block, raw_connection
from support.server import ServerProcess, start_server
from support.wire import SECONDS, connect

MAX_CONCURRENT_STREAMS = 3
MAX_HEADER_LIST_SIZE = 6
"""The identifiers of two settings of HTTP/2."""


def announced(server: ServerProcess) -> dict[int, int]:
    """Returns the settings of HTTP/2 that the server announces to clients."""
    with raw_connection(server.target) as connection:
        connection.send(GREETING)
        payload = next(received.payload for received in connection.frames() if received.kind == Kind.SETTINGS)
    pairs = (payload[at : at + 6] for at in range(0, len(payload), 6))
    return {int.from_bytes(pair[:2]): int.from_bytes(pair[2:]) for pair in pairs}


def test_the_limit_of_metadata_is_exact(synthetic_server: ServerProcess) -> None:
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
        with connect(server.target) as caller:  # the client's library obeys it, and lets the remaining calls wait
            request = model_pb2.GetModelRequest()
            calls: list[Any] = [caller.stub.GetModel.future(request, timeout=SECONDS) for _ in range(500)]
            assert Counter(call.code() for call in calls) == {grpc.StatusCode.OK: 500}


def test_no_call_of_a_burst_is_refused(synthetic_server: ServerProcess) -> None:
    """gRPC's core would cancel some or all calls beyond a thousand."""
    headers = header_block("/doherty.v1.GenerationService/GetModel")
    calls = b"".join(
        frame(Kind.HEADERS, END_HEADERS, stream, headers) + frame(Kind.DATA, END_STREAM, stream, bytes(5))
        for stream in range(1, 1001, 2)
    )
    with ExitStack() as stack:
        connections = [stack.enter_context(raw_connection(synthetic_server.target)) for _ in range(8)]
        for connection in connections:
            connection.send(GREETING)
            next(received for received in connection.frames() if received.kind == Kind.SETTINGS)
        for connection in connections:
            connection.send(calls)
        # All are read at the same time, because the server closes a connection on which its pings are not answered.
        with ThreadPoolExecutor(len(connections)) as pool:
            fates = list(pool.map(lambda connection: Counter(islice(_fates(connection), 500)), connections))
    assert fates == [{True: 500}] * len(connections)


def _fates(connection: RawConnection) -> Iterator[bool]:
    """Returns whether each call has a reply. Without a reply, its first frame is its last one, or a reset."""
    answered = set[int]()
    for received in connection.frames():
        if received.stream and received.stream not in answered:
            answered.add(received.stream)
            yield received.kind == Kind.HEADERS and not received.flags & END_STREAM


@pytest.fixture
def few_files() -> Iterator[None]:
    """Limits the processes that this process starts to 256 open files, unless they raise the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_the_file_limit_is_raised_for_all_connections() -> None:
    with start_server("--engine", "synthetic", "--max-connections", "300") as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(line.split()[3]) > 300


def test_too_few_files_are_logged() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**31 - 2
    with start_server("--engine", "synthetic", "--max-connections", str(most)) as server:
        line = server.wait_for("few_files")
    assert (line["limit"], line["wanted"]) == (hard, most + 512)

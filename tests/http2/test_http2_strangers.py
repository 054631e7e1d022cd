"""Connections on which no caller was accepted get less than the others."""

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from doherty_service.http2 import Http2Server, Limits, Timeouts, _intake
from doherty_service.http2._connection import Connection
from doherty_service.rpc import Method
from support.conformance import complete_request
from support.fuzz.in_process import MemoryTransport
from support.http2 import GREETING
from support.raw_rpc import GENERATE, headers

if TYPE_CHECKING:
    from doherty_service._call import Call
    from doherty_service.rpc import LatencyInterceptor

KIB = 1 << 10
REQUESTS = 20


class Accepting:
    """Accepts every caller, whose call waits."""

    def method(self, _: object, __: str) -> Method:
        """Returns the same method for every path."""
        return Method(self._accept, None)

    async def _accept(self, call: "Call") -> None:
        call.accept()
        await asyncio.Event().wait()


def send(connection: Connection, data: bytes) -> None:
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


async def test_a_connection_may_send_more_once_a_caller_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_intake, "time", SimpleNamespace(monotonic=lambda: 0.0))  # no turn takes too long
    server = Http2Server(
        cast("LatencyInterceptor", Accepting()),
        Limits(message_bytes=KIB, streams=4 * REQUESTS, connections=2),
        Timeouts(idle=60, age=0),
    )
    connection = Connection(server)
    connection.connection_made(MemoryTransport())
    numbers = range(1, 8 * REQUESTS, 2)
    requests = [complete_request(number, headers(GENERATE)) for number in numbers]
    assert len(connection.get_buffer(-1)) == 4 * KIB
    send(connection, GREETING + b"".join(requests[:REQUESTS]))
    assert len(connection.streams) in {8, 9}  # a request more if the bytes are cut within its header
    while len(connection.streams) < REQUESTS or connection.is_in_line:  # noqa: ASYNC110 - there is no event
        await asyncio.sleep(0)
    assert len(connection.get_buffer(-1)) == 256 * KIB
    send(connection, b"".join(requests[REQUESTS:]))
    assert len(connection.streams) - REQUESTS in {32, 33}
    connection.connection_lost(None)
    tasks = asyncio.all_tasks() - {cast("asyncio.Task[None]", asyncio.current_task())}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

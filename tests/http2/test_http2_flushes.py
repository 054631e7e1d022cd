"""When connections send what their streams have written."""

import asyncio
from typing import TYPE_CHECKING, cast

from doherty_service.http2 import Http2Server, Limits, Timeouts

if TYPE_CHECKING:
    from doherty_service.http2._connection import Connection
    from doherty_service.rpc import LatencyInterceptor


class Flushed:
    """Notes that it is flushed."""

    def __init__(self, number: int, flushed: list[int]) -> None:
        self._number = number
        self._flushed = flushed

    def flush(self) -> None:
        self._flushed.append(self._number)


async def test_a_connection_waits_for_at_most_fifteen_others_before_it_is_flushed() -> None:
    interceptor = cast("LatencyInterceptor", None)  # no call arrives
    server = Http2Server(interceptor, Limits(message_bytes=1, streams=1, connections=1), Timeouts(idle=60, age=0))
    flushed: list[int] = []
    most: list[int] = []
    for number in range(40):
        server.flush_soon(cast("Connection", Flushed(number, flushed)))
        most.append(number + 1 - len(flushed))
    assert max(most) == 16
    await asyncio.sleep(0)
    assert flushed == list(range(40))

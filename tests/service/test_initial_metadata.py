"""RPCs that fail while their initial metadata are sent. Their callers get the status."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from doherty_service.generation import MessageWriter
from doherty_service.rpc import GrpcioCall

METHOD = "/a.Service/Method"
SECONDS = 10.0
SIZES = {"small": 10, "large": 100_000}


class Writer(MessageWriter):
    """A writer that ignores the end of its writes."""

    @property
    def is_sent(self) -> bool:
        """Whether gRPC's core has sent the message; grpc.aio does not know it yet."""
        return self._awaited is None or self._awaited.done()

    def written(self, error: Exception | None) -> None:
        """Does nothing."""

    def stall(self) -> None:
        """Does nothing."""


@asynccontextmanager
async def serving(behavior: Callable[[Any, Any], Awaitable[None]]) -> AsyncIterator[Any]:
    """Runs a server with one streaming method. Yields a function that calls it."""
    handler: Any = grpc.unary_stream_rpc_method_handler(behavior)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", {"Method": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_stream(METHOD)
    await server.stop(0)


async def status_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call(b"", timeout=SECONDS):
            pass
    return caught.value.code()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("moment", ["at once", "when it is sent"])
async def test_a_writer_stops_when_grpc_knows_of_its_first_message(size: str, moment: str) -> None:
    async def behave(_: bytes, context: Any) -> None:
        writer = Writer(GrpcioCall(context))
        writer.write(bytes(SIZES[size]))
        while moment != "at once" and not writer.is_sent:  # noqa: ASYNC110 - an event would arrive one turn too late
            await asyncio.sleep(0)
        await writer.stop()
        await context.abort(grpc.StatusCode.DATA_LOSS)

    async with serving(behave) as call:
        assert await status_of(call) is grpc.StatusCode.DATA_LOSS


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
async def test_a_cancelled_rpc_has_a_status(turns: int, size: str) -> None:
    """At any time of the cancellation, counted in turns of the event loop."""

    async def behave(_: bytes, context: Any) -> None:
        async def write() -> None:
            await GrpcioCall(context).write(bytes(SIZES[size]))

        writing = asyncio.create_task(write())
        for _turn in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        await context.abort(grpc.StatusCode.DATA_LOSS)

    async with serving(behave) as call:
        assert await status_of(call) is grpc.StatusCode.DATA_LOSS


class UnreadContext:
    """A call whose caller never reads its messages."""

    def __init__(self) -> None:
        self.metadata_sent = asyncio.get_running_loop().create_future()

    async def send_initial_metadata(self, _: object) -> None:
        await self.metadata_sent

    async def write(self, _: object) -> None:
        await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("turns", range(5))
async def test_a_writer_stops_although_its_caller_reads_nothing(turns: int) -> None:
    context: Any = UnreadContext()
    writer = Writer(GrpcioCall(context))
    writer.write(bytes(SIZES["large"]))
    context.metadata_sent.set_result(None)
    for _ in range(turns):
        await asyncio.sleep(0)
    await asyncio.wait_for(writer.stop(), SECONDS)
    assert writer.write_began is None

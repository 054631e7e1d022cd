"""RPCs that end with an error while their initial metadata are being sent: their callers get the status."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from doherty_service.generation import MessageWriter
from doherty_service.rpc import GrpcioCall, send_initial_metadata

METHOD = "/a.Service/Method"
SECONDS = 10.0
SIZES = {"small": 10, "large": 100_000}


class Writer(MessageWriter):
    """A writer that is not interested in its writes."""

    @property
    def is_sent(self) -> bool:
        """Whether core has sent what is being written; grpc.aio does not know it yet."""
        return self._awaited is None or self._awaited.done()

    def written(self, error: Exception | None) -> None:
        """Does nothing."""

    def stall(self) -> None:
        """Does nothing."""


@asynccontextmanager
async def serving(behavior: Callable[[Any, Any], Awaitable[None]]) -> AsyncIterator[Any]:
    """A server with one method that streams, and a function that calls it."""
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
async def test_a_writer_stops_when_grpc_knows_of_its_first_message(size: str) -> None:
    async def behave(_: bytes, context: Any) -> None:
        writer = Writer(GrpcioCall(context))
        writer.write(bytes(SIZES[size]))
        while not writer.is_sent:  # noqa: ASYNC110 - an event would come one turn too late
            await asyncio.sleep(0)
        await writer.stop()
        await context.abort(grpc.StatusCode.DATA_LOSS)

    async with serving(behave) as call:
        assert await status_of(call) is grpc.StatusCode.DATA_LOSS


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
async def test_a_cancelled_rpc_has_a_status(turns: int) -> None:
    """Whenever it is cancelled, counted in turns of the event loop."""

    async def behave(_: bytes, context: Any) -> None:
        async def write() -> None:
            await send_initial_metadata(context)
            await context.write(bytes(100_000))

        writing = asyncio.create_task(write())
        for _turn in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait((writing,))
        await context.abort(grpc.StatusCode.DATA_LOSS)

    async with serving(behave) as call:
        assert await status_of(call) is grpc.StatusCode.DATA_LOSS

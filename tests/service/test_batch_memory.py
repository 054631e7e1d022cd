"""The memory of batches that fail or are given up, which grpc.aio loses by itself."""

import asyncio
import gc
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast
from weakref import WeakSet

import grpc
import grpc.aio
import pytest

from doherty_service.generation import MessageWriter
from doherty_service.rpc import GrpcioCall
from doherty_service.transport import ServerLoop
from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PREFACE,
    Kind,
    RawConnection,
    Setting,
    frame,
    header_block,
    reset,
    settings,
)
from support.markers import only_grpcio
from support.memory import allocated_bytes, needs_allocated_bytes
from support.wire import SECONDS

pytestmark = only_grpcio

WARM_UP, CALLS = 100, 300
MAX_BYTES_PER_CALL = 150
"""A lost write takes 300 bytes, and a lost status 570. Without losses, the figure was 52 at most."""


class Writer(MessageWriter):
    error: Exception | None = None

    def written(self, error: Exception | None) -> None:
        """Keeps the error."""
        self.error = error

    def stall(self) -> None:
        """Does nothing."""


Ending = Callable[[GrpcioCall, asyncio.Event], Awaitable[None]]
"""Sets the event when the caller may leave, and returns or raises when the caller has left."""


async def write_unread_message(call: GrpcioCall, ready: asyncio.Event) -> None:
    await call.send_initial_metadata(())
    writer = Writer(call)
    writer.write(b"a")
    await wait_for_end(ready)
    await writer.stop()


async def await_unread_message(call: GrpcioCall, ready: asyncio.Event) -> None:
    await call.send_initial_metadata(())
    ready.set()
    with suppress(grpc.aio.InternalError):  # which grpc.aio would log
        await call.write(b"a")


async def write_after_the_end(call: GrpcioCall, ready: asyncio.Event) -> None:
    await call.send_initial_metadata(())
    await wait_for_end(ready)
    with pytest.raises(grpc.aio.InternalError):
        await call.write(b"a")
    writer = Writer(call)
    writer.write(b"a")
    while writer.write_began is not None:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    assert type(writer.error) is grpc.aio.InternalError


async def abort_after_the_end(call: GrpcioCall, ready: asyncio.Event) -> None:
    await wait_for_end(ready)
    with pytest.raises(grpc.aio.InternalError):
        await call.abort(grpc.StatusCode.DATA_LOSS, "It is lost. " * 10, (("a-long-name" * 3, "a long value" * 3),))


async def wait_for_end(ready: asyncio.Event) -> None:
    ready.set()
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()


async def grow(endings: "tuple[Ending, ...]") -> dict[str, float]:
    """Returns how many more bytes are allocated after CALLS calls whose callers leave, per call.

    Checks without garbage collections that the calls themselves are freed.
    """
    ready, ended = asyncio.Event(), asyncio.Event()
    errors: list[BaseException] = []
    kept: WeakSet[GrpcioCall] = WeakSet()

    def handler(ending: Ending) -> Any:
        async def behave(_: Any, context: Any) -> None:
            call = GrpcioCall(context)
            kept.add(call)
            try:
                await ending(call, ready)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - the test fails with it
                errors.append(error)
            finally:
                ended.set()

        return grpc.stream_stream_rpc_method_handler(behave)

    server = grpc.aio.server()
    handlers = {ending.__name__: handler(ending) for ending in endings}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connection = RawConnection(f"127.0.0.1:{port}")
    connection.send(PREFACE, settings((Setting.INITIAL_WINDOW_SIZE, 0)), frame(Kind.SETTINGS, ACK))
    # Core sends pings after resets, and takes no calls until they are answered
    answering = asyncio.create_task(asyncio.to_thread(deque, connection.frames(), maxlen=0))
    streams = itertools.count(1, 2)

    async def call(method: str, number: int) -> None:
        for _ in range(number):
            ready.clear()
            ended.clear()
            stream = next(streams)
            connection.send(frame(Kind.HEADERS, END_HEADERS | END_STREAM, stream, header_block(f"/a.Service/{method}")))
            await ready.wait()
            connection.send(reset(stream))
            await ended.wait()
            assert not errors

    grown: dict[str, float] = {}
    try:
        for method in handlers:
            await call(method, WARM_UP)
            before = allocated_bytes()
            await call(method, CALLS)
            grown[method] = (allocated_bytes() - before) / CALLS
            async with asyncio.timeout(SECONDS):
                while kept:  # noqa: ASYNC110 - nothing tells when grpc.aio drops a call
                    await asyncio.sleep(0)
        return grown
    finally:
        connection.shut()
        await answering
        connection.close()
        await server.stop(None)


@needs_allocated_bytes
def test_calls_whose_callers_leave_lose_no_memory() -> None:
    endings = write_unread_message, await_unread_message, write_after_the_end, abort_after_the_end
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=cast("Any", ServerLoop)) as runner:
            grown = runner.run(grow(endings))
    finally:
        gc.enable()
    assert max(grown.values()) < MAX_BYTES_PER_CALL, grown

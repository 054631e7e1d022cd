"""A stream of deltas on an event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import grpc
import grpc.aio

from doherty._aio._connection import AsyncConnection, task_is_cancelled
from doherty._core._log import log_call
from doherty._core._results import Delta, Generation, Timings
from doherty._core._stream import StreamState

if TYPE_CHECKING:
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse
    from doherty.v1.request_pb2 import GenerateRequest


class AsyncGenerationStream:
    """An answer while it comes into being: an asynchronous iterator of deltas, and a context manager.

    Leaving the context, `close`, dropping the object and cancelling the task that reads it end the request at the
    server at once.
    """

    def __init__(self, connection: AsyncConnection, request: "GenerateRequest", timeout: float | None) -> None:
        """Sends the request."""
        self._state = StreamState(request.request_id or None)
        self._request = request
        self._connection = connection
        self._started = perf_counter()
        self._loop = asyncio.get_running_loop()
        self._call = connection.stream(request, timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while (message := await self._read()) is not None:
            if (delta := self._state.feed(message)) is not None:
                return delta
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        # There is no call where the constructor failed.
        if hasattr(self, "_call") and not self._state.ended and not self._state.complete:
            # The garbage collector runs in any thread. A loop that is closed has lost its calls with its channels.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._call.cancel)

    @property
    def text(self) -> str:
        """The text that was received so far; it stays after an error."""
        return self._state.text

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The rest of the stream as an asynchronous iterator of texts, none of them empty."""
        return _Texts(self)

    @property
    def request_id(self) -> str | None:
        """The id under which the server logs the request; before its first message, the caller's own or None."""
        return self._state.request_id

    @property
    def timings(self) -> Timings | None:
        """The server's timings; None until the answer is complete."""
        return self._state.timings

    async def result(self) -> Generation:
        """Reads the rest, and returns the whole answer.

        Raises:
            StreamError: The stream ended before the answer was complete, or was closed.
            RpcError: The call failed.
        """
        async for _ in self:
            pass
        return self._state.generation()

    async def close(self) -> None:
        """Ends the request at the server at once, unless the answer is complete."""
        self._cancel()

    def _cancel(self) -> None:
        if not self._state.ended and not self._state.complete:
            self._state.fail(self._state.error("The stream was closed before its answer was complete."))
            self._call.cancel()

    async def _read(self) -> "StreamGenerateResponse | None":
        if self._state.failure is not None:
            raise self._state.failure
        if self._state.ended:
            return None
        try:
            message = await self._call.read()
        except asyncio.CancelledError as error:
            if task_is_cancelled():
                # gRPC does not cancel a call whose request is still being sent.
                self._cancel()
                raise
            self._give_up(error)
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            self._give_up(error)
        else:
            if message is not grpc.aio.EOF:
                return cast("StreamGenerateResponse", message)
            self._state.end()
            log_call(self._request, self._connection.target, self._started, "OK")
        return None

    def _give_up(self, error: BaseException) -> None:
        """Ends the stream for what gRPC raised, which is nothing to tell once the answer is complete."""
        if self._state.complete:
            self._state.ended = True
        elif self._state.failure is not None:
            # Another task closed the stream while this one waited for a message.
            raise self._state.failure from error
        else:
            failure = self._connection.failed(error, self._request, self._started, begun=self._state.begun)
            raise self._state.fail(failure) from error


class _Texts:
    """The texts of a stream. An asynchronous generator would outlive a `break` until the loop gets to finish it."""

    def __init__(self, stream: AsyncGenerationStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        async for delta in self._stream:
            if delta.text:
                return delta.text
        raise StopAsyncIteration

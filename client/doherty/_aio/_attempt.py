"""One try at a stream, on one target."""

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from doherty._core._errors import ClientClosedError
from doherty._core._log import log_attempt

if TYPE_CHECKING:
    from doherty._aio._pool import AsyncPool
    from doherty._core._retry import Course
    from doherty._core._stream import StreamState
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse

_EOF: Final = grpc.aio.EOF


class AsyncAttempt:
    """The messages of one StreamGenerate call."""

    def __init__(self, pool: "AsyncPool", state: "StreamState", course: "Course") -> None:
        """Chooses a target and sends the request there."""
        self.target = pool.dispatch.begin(course)
        self._targets = pool.dispatch.targets
        self._started = perf_counter()
        self._fresh = True
        connection = pool.connection(self.target)
        try:
            self._request = state.next_request()
            self._call = connection.answers.StreamGenerate(
                self._request, timeout=course.remaining(), metadata=(*pool.settings.metadata, *course.metadata)
            )
        except BaseException as error:
            self._targets.end(self.target)
            if pool.dispatch.closed and isinstance(error, grpc.aio.UsageError):
                raise ClientClosedError("The client was closed.") from error
            raise
        connection.streams.add(self._call)
        # gRPC calls it however the call ends, also when the stream is dropped.
        targets, target = self._targets, self.target
        self._call.add_done_callback(lambda _: targets.end(target))

    async def read(self) -> "StreamGenerateResponse | None":
        """Waits for the next message; None when the server sends no more.

        Raises:
            asyncio.CancelledError: The running task was cancelled, or the call was.
            grpc.RpcError: The call failed.
        """
        try:
            message: Any = await self._call.read()
        except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
            log_attempt(self._request, self.target.name, self._started, error)
            raise
        if message is _EOF:
            log_attempt(self._request, self.target.name, self._started)
            return None
        if self._fresh:
            self._fresh = False
            self._targets.worked(self.target)
        received: StreamGenerateResponse = message
        return received

    def cancel(self) -> None:
        """Ends the request at the server at once."""
        self._call.cancel()

"""A request on a shared RPC, as a call that can be read and cancelled."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from doherty._core._event_log import REQUEST_ID
from doherty.v1 import generation_service_pb2 as wire

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

    from doherty.v1.answer_pb2 import Timings


class MultiplexedError(grpc.RpcError):
    """The error of a request, with the methods of gRPC's errors."""

    def __init__(
        self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()
    ) -> None:
        super().__init__(code, details, trailing_metadata)
        self._code = code
        self._details = details
        self._trailing_metadata = trailing_metadata

    def __str__(self) -> str:
        return f"{self._code.name}: {self._details}"

    def code(self) -> grpc.StatusCode:
        """Returns the status code."""
        return self._code

    def details(self) -> str:
        """Returns the status message."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Returns the trailing metadata."""
        return self._trailing_metadata


class MultiplexedCall:
    """The messages of one request, without a limit on the buffer: a slow reader does not block other requests.

    As with gRPC's calls, one task reads it and any task may cancel it.
    """

    def __init__(
        self,
        identifier: int,
        leave: Callable[[int], None],
        timeout: float | None,
        initial_metadata: Callable[[], Awaitable[Any]],
    ) -> None:
        """Calls `leave` when the request is cancelled, and after `timeout` seconds.

        `initial_metadata` is that of the RPC.
        """
        self._rpc_metadata = initial_metadata
        self._has_part = False
        """Set when something of the answer has arrived, which implies that the RPC's initial metadata has arrived."""
        self._id = identifier
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._kept: deque[bytes] = deque()
        """Messages that came while nobody waited. They are encoded, because a parsed part would keep the whole message
        of the RPC in memory, with the parts of all other requests."""
        self._metadata: tuple[tuple[str, str], ...] | None = None
        """The server's report of the admission; empty if the answer began or ended without a report."""
        self._awaits_metadata: asyncio.Future[None] | None = None
        self._is_over = False
        self._error: BaseException | None = None
        self._arrival: asyncio.Future[wire.StreamGenerateResponse | None] | None = None
        """The future for which the reader waits: the next message, or None at the end."""
        self._callbacks: list[Callable[[MultiplexedCall], object]] = []
        self._alarm = None if timeout is None else self._loop.call_later(timeout, self._expire)

    async def initial_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Waits for the admission of the request, its first message or its end.

        Returns:
            The initial metadata of the RPC, and the report of the admission that a separate call's would contain.
        """
        if self._metadata is None:
            self._awaits_metadata = self._loop.create_future()
            await self._awaits_metadata
        return (*(await self._rpc_metadata()), *(self._metadata or ())) if self._has_part else ()

    async def read(self) -> Any:
        """Waits for the next message; grpc.aio.EOF after the last one.

        Raises:
            asyncio.CancelledError: The running task was cancelled, or the call was.
            grpc.RpcError: The request failed.
        """
        if not self._kept and not self._is_over:
            self._arrival = self._loop.create_future()
            message = await self._arrival
            self._arrival = None
            if message is not None:
                return message
        if self._kept:
            return wire.StreamGenerateResponse.FromString(self._kept.popleft())
        if self._error is not None:
            raise self._error
        return grpc.aio.EOF

    async def trailing_metadata(self) -> tuple[()]:
        """Returns no metadata, because the RPC continues with other requests."""
        return ()

    def __await__(self) -> Generator[Any, None, wire.GenerateResponse]:
        """Waits for the whole answer.

        Raises:
            asyncio.CancelledError: The running task was cancelled, or the call was.
            grpc.RpcError: The request failed.
        """
        return self._reply().__await__()

    async def _reply(self) -> wire.GenerateResponse:
        try:
            return await self._read_reply()
        finally:
            self.cancel()

    async def _read_reply(self) -> wire.GenerateResponse:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise MultiplexedError(grpc.StatusCode.UNAVAILABLE, "the RPC ended before the answer")
        answer = cast("wire.StreamGenerateResponse", message)
        return wire.GenerateResponse(
            start=answer.start,
            text=answer.delta.text,
            token_ids=answer.delta.token_ids,
            logprobs=answer.delta.logprobs,
            summary=answer.summary,
        )

    def cancel(self) -> bool:
        """Ends the request on the server. Returns False if it had ended already."""
        if self._is_over:
            return False
        self._kept.clear()  # as with gRPC's calls, there is nothing more to read
        self.end(asyncio.CancelledError())
        self._leave(self._id)
        return True

    def add_done_callback(self, callback: "Callable[[MultiplexedCall], object]") -> None:
        """Calls `callback` when the request has ended, for whatever reason."""
        if self._is_over:
            callback(self)
        else:
            self._callbacks.append(callback)

    def feed(self, part: wire.MultiplexPart) -> bool:
        """Adds a part of the answer, and returns whether it was the last one."""
        if self._metadata is None:
            self._has_part = True
            if part.HasField("admission"):
                self._set_metadata(((REQUEST_ID, part.admission.request_id),))
                return False
            self._set_metadata(())
        if part.HasField("status"):
            self.end(_error(part.status, part.timings))
            return True
        response = part.response
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(response)
        else:
            self._kept.append(response.SerializeToString())
        if response.HasField("summary"):
            self.end(None)
            return True
        return False

    def end(self, error: BaseException | None) -> None:
        """Records the end of the request; `error` is None if the answer is complete."""
        if self._is_over:
            return
        self._is_over = True
        self._error = error
        if self._metadata is None:
            self._set_metadata(())
        if self._alarm is not None:
            self._alarm.cancel()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _set_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        if self._awaits_metadata is not None and not self._awaits_metadata.done():
            self._awaits_metadata.set_result(None)

    def _expire(self) -> None:
        self.end(MultiplexedError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        self._leave(self._id)


def _error(status: "Status", timings: "Timings") -> MultiplexedError:
    """Returns the error with which a separate call would have ended."""
    spans = ", ".join(
        f"{field.name};dur={(value.seconds + value.nanos / 1e9) * 1000:.3f}" for field, value in timings.ListFields()
    )
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    details = (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()
    return MultiplexedError(code, status.message, (*details, ("server-timing", spans)))

"""Sends many requests on one RPC."""

import asyncio
import copy
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import grpc.aio

from doherty._aio._loop import cancels_task
from doherty._aio._message_bound import MessageBound
from doherty._aio._multiplexed import MultiplexedCall, MultiplexedError
from doherty._core._channel import is_several
from doherty.v1 import generation_service_pb2 as wire

if TYPE_CHECKING:
    from doherty._aio._connection import AsyncConnection
    from doherty._aio._tasks import Tasks
    from doherty._core._actions import Send
    from doherty._core._metadata import Pairs
    from doherty.v1.request_pb2 import GenerateRequest

_FRAME_BYTES: Final = 64
"""Maximum number of bytes that a request adds to a message, without the request itself and its metadata."""

_CANCEL_BYTES: Final = 8
"""Maximum number of bytes that a cancellation adds to a message."""

_TELL_ADMISSION: Final = ("doherty-tell-admission", "1")
"""Asks the server to report when requests are admitted. Older servers ignore it."""

TURN: Final = 64
"""Maximum number of requests per RPC if there may be several servers, because gRPC chooses a server for each RPC."""

_OF_GRPC: Final = (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError)
"""Errors of gRPC."""


def max_requests_per_rpc(target: str, *, multiplex: bool | int) -> float:
    """Returns how many requests an RPC to a target carries. Servers behind one target get whole RPCs in turn."""
    if multiplex is not True:
        return multiplex
    return TURN if is_several(target) else inf


class Multiplexer:
    """Sends the requests to one target on a MultiplexGenerate, which the first request opens.

    The next request opens another RPC if that one has ended, or if its key is different.
    """

    def __init__(self, connection: "AsyncConnection", max_requests: float) -> None:
        """Does not connect yet.

        Args:
            connection: The connection for the RPCs. It cancels them when it is closed.
            max_requests: Maximum number of requests per RPC.
        """
        self._connection = connection
        self._max_requests = max_requests
        self._bound = MessageBound(connection)
        self._carrier: _Carrier | None = None
        self._loop = asyncio.get_running_loop()

    def __del__(self) -> None:
        carrier: _Carrier | None = getattr(self, "_carrier", None)
        if carrier is not None:
            # The garbage collector runs in any thread. A loop that is closed has lost its calls with its channels.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(carrier.retire)

    def begin(self, send: "Send") -> Any:
        """Starts a Generate or a StreamGenerate. The result has the methods of a gRPC call."""
        request = cast("GenerateRequest", send.request)
        if self._carrier is not None and self._carrier.ended:
            self._carrier = None
            self._bound.forget()
        size = request.ByteSize() + _FRAME_BYTES + sum(len(value) for _, value in send.metadata)
        self._bound.want(size, send.shared)
        if size > self._bound.bytes:
            rpc = self._connection.rpc(send.rpc)
            return rpc(request, timeout=send.timeout, metadata=send.metadata)
        return self._share(request, size, send)

    def _share(self, request: "GenerateRequest", size: int, send: "Send") -> MultiplexedCall:
        if self._carrier is not None and self._carrier.metadata != send.shared:
            self._end_carrier()
        if self._carrier is None:
            shared = (*send.shared, _TELL_ADMISSION)
            rpc = self._connection.generation.MultiplexGenerate(metadata=shared)
            self._connection.streams.add(rpc)
            self._carrier = _Carrier(rpc, send.shared, self._bound, self._connection.tasks)
        metadata = {name: value for name, value in send.metadata if isinstance(value, str)}
        call = self._carrier.begin(request, size, send.timeout, metadata, whole=send.rpc == "Generate")
        if self._carrier.requests >= self._max_requests:
            self._end_carrier()
        return call

    def retire(self) -> None:
        """Ends each RPC when its requests have ended. Each later request gets an RPC of its own."""
        self._max_requests = 0
        self._bound.close()
        self._end_carrier()

    def _end_carrier(self) -> None:
        """Makes the next request open another RPC. The current RPC ends when its requests have ended."""
        if self._carrier is not None:
            self._carrier.retire()
            self._carrier = None


class _Carrier:
    """One MultiplexGenerate, with a reading and a writing task. Requests that come during a write share a message."""

    def __init__(
        self,
        rpc: "grpc.aio.StreamStreamCall[wire.MultiplexGenerateRequest, wire.MultiplexGenerateResponse]",
        metadata: "Pairs",
        bound: MessageBound,
        tasks: "Tasks",
    ) -> None:
        self.metadata = metadata
        """The metadata with which the RPC was opened."""
        self.ended = False
        """Whether it accepts no more requests."""
        self.requests = 0
        """The number of requests that were started, which is also the id of the last one."""
        self._rpc = rpc
        self._bound = bound
        self._retired = False
        self._calls: dict[int, MultiplexedCall] = {}
        self._outgoing: deque[wire.MultiplexGenerateRequest] = deque()
        self._size = 0
        self._has_outgoing = asyncio.Event()
        tasks.start(self._read())
        tasks.start(self._write())

    def begin(
        self, request: "GenerateRequest", size: int, timeout: float | None, metadata: dict[str, str], *, whole: bool
    ) -> MultiplexedCall:
        """Sends a request of `size` bytes with the next message."""
        self.requests += 1
        start = self._message(size).starts.add(
            id=self.requests,
            whole=whole,
            attempts=int(metadata.get("doherty-attempts", 0)),
            traceparent=metadata.get("traceparent", ""),
            tracestate=metadata.get("tracestate", ""),
        )
        start.request.CopyFrom(request)
        if (trying := int(metadata.get("doherty-trying-since-ms", 0))) > 0:
            start.trying_for.FromMilliseconds(trying)
        if timeout is not None:
            start.timeout.FromNanoseconds(round(timeout * 1e9))
        call = MultiplexedCall(self.requests, self._leave, timeout, self._rpc.initial_metadata)
        self._calls[self.requests] = call
        return call

    def retire(self) -> None:
        """Ends the RPC as soon as its calls have ended."""
        self._retired = True
        self._has_outgoing.set()

    def _leave(self, identifier: int) -> None:
        """Cancels a request on the server."""
        if self._forget(identifier):
            self._message(_CANCEL_BYTES).cancels.append(identifier)

    def _forget(self, identifier: int) -> bool:
        known = self._calls.pop(identifier, None) is not None
        if self._retired and not self._calls:
            self._has_outgoing.set()
        return known

    def _message(self, size: int) -> wire.MultiplexGenerateRequest:
        """Returns the last unsent message if it has room for `size` more bytes, otherwise a new one."""
        if self._outgoing:
            self._bound.want(self._size + size, self.metadata)
        if not self._outgoing or self._size + size > self._bound.bytes:
            self._outgoing.append(wire.MultiplexGenerateRequest())
            self._size = 0
        self._size += size
        self._has_outgoing.set()
        return self._outgoing[-1]

    async def _write(self) -> None:
        try:
            while not self.ended:
                while self._outgoing:
                    await self._rpc.write(self._outgoing.popleft())
                if self._retired and not self._calls:
                    await self._rpc.done_writing()
                    return
                self._has_outgoing.clear()
                await self._has_outgoing.wait()
        except Exception:  # noqa: BLE001, S110 - the reading task gets the reason, which may be any error of an interceptor
            pass

    async def _read(self) -> None:
        error: BaseException | None = None
        try:
            while (message := await self._rpc.read()) is not grpc.aio.EOF:
                for part in cast("wire.MultiplexGenerateResponse", message).parts:
                    if (call := self._calls.get(part.id)) is not None and call.feed(part):
                        self._forget(part.id)
        except (asyncio.CancelledError, Exception) as broken:
            error = broken
            if cancels_task(broken):
                raise
            if _broke_in_a_write(broken):
                error = _lost("the connection broke while requests were sent")
            elif self._bound.learn(broken):
                error = _lost("the server takes smaller messages only")
        finally:
            self.ended = True
            self._has_outgoing.set()
            calls, self._calls = self._calls, {}
            for call in calls.values():
                # Raising an error adds frames to it, so each request gets a copy. Some exceptions cannot be copied.
                call.end(copy.copy(error) if isinstance(error, _OF_GRPC) else error)


def _broke_in_a_write(error: BaseException) -> bool:
    """Whether an RPC ended because its connection broke during a write. grpc.aio reports this as INTERNAL."""
    return (
        isinstance(error, grpc.aio.AioRpcError)
        and error.code() is grpc.StatusCode.INTERNAL
        and error.details() == "Internal error from Core"
    )


def _lost(details: str) -> MultiplexedError:
    """Returns an error after which the requests are retried."""
    return MultiplexedError(grpc.StatusCode.UNAVAILABLE, details)

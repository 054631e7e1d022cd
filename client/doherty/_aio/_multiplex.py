"""Many requests on one RPC."""

# ruff: noqa: ASYNC109 - the timeout is the request's deadline, which the server gets to know

import asyncio
import copy
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import grpc.aio

from doherty._aio._loop import cancels_task
from doherty._aio._message_bound import MessageBound
from doherty._aio._multiplexed import MultiplexedCall, MultiplexedError
from doherty.v1 import generation_service_pb2 as wire

if TYPE_CHECKING:
    from doherty.v1.generation_service_pb2_grpc import GenerationServiceAsyncStub
    from doherty.v1.request_pb2 import GenerateRequest

_Metadata = tuple[tuple[str, str], ...]

_FRAME_BYTES: Final = 64
"""At most what a message has around a request, but for the metadata."""

_CANCEL_BYTES: Final = 8
"""The same of a cancel."""

_TURN: Final = 64
"""How many requests an RPC carries where several servers take turns: gRPC chooses one of them for each RPC."""

_BROKEN: Final = (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError)
"""What gRPC raises for an RPC that has ended, or ends during a write."""


class Multiplexer:
    """Carries the requests to one target on a MultiplexGenerate, which it opens with the first one.

    When that RPC has ended, the next request opens another. Its methods stand for those of the stub.
    """

    def __init__(self, stub: "GenerationServiceAsyncStub", metadata: _Metadata, *, several: bool) -> None:
        """Does not connect yet.

        Args:
            stub: Makes the RPCs.
            metadata: Goes with each RPC; has the key.
            several: Whether several servers may stand behind the target, which then take turns.
        """
        self._stub = stub
        self._metadata = metadata
        self._most_requests = _TURN if several else inf
        self._bound = MessageBound(stub, metadata)
        self._carrier: _Carrier | None = None

    def StreamGenerate(  # noqa: N802 - as the stub's
        self, request: "GenerateRequest", *, timeout: float | None, metadata: _Metadata
    ) -> Any:
        """Begins a request; what is returned is read and cancelled as a call is."""
        if (size := self._size(request, metadata)) is None:
            return self._stub.StreamGenerate(request, timeout=timeout, metadata=metadata)
        return self._begin(request, size, timeout, metadata, whole=False)

    async def Generate(  # noqa: N802 - as the stub's
        self, request: "GenerateRequest", *, timeout: float | None, metadata: _Metadata
    ) -> wire.GenerateResponse:
        """Makes a request, and waits for its whole answer.

        Raises:
            grpc.RpcError: It failed.
        """
        if (size := self._size(request, metadata)) is None:
            return await self._stub.Generate(request, timeout=timeout, metadata=metadata)
        call = self._begin(request, size, timeout, metadata, whole=True)
        try:
            return await call.reply()
        finally:
            call.cancel()

    def _size(self, request: "GenerateRequest", metadata: _Metadata) -> int | None:
        """How many bytes a request takes in a message; None where it has to go by itself."""
        if self._carrier is not None and self._carrier.ended:
            self._carrier = None
            self._bound.forget()
        size = request.ByteSize() + _FRAME_BYTES + sum(len(value) for _, value in metadata)
        self._bound.want(size)
        return size if size <= self._bound.bytes else None

    def _begin(
        self, request: "GenerateRequest", size: int, timeout: float | None, metadata: _Metadata, *, whole: bool
    ) -> MultiplexedCall:
        if self._carrier is None:
            self._carrier = _Carrier(self._stub.MultiplexGenerate(metadata=self._metadata), self._bound)
        call = self._carrier.begin(request, size, timeout, dict(metadata), whole=whole)
        if self._carrier.requests >= self._most_requests:
            self._carrier.retire()
            self._carrier = None
        return call

    def close(self) -> None:
        """Ends the RPC that requests are begun on; one that has no more to begin ends with its calls."""
        self._bound.close()
        if self._carrier is not None:
            self._carrier.cancel()


class _Carrier:
    """One MultiplexGenerate: a task that reads, and one that writes what has gathered while it wrote before."""

    def __init__(
        self,
        rpc: "grpc.aio.StreamStreamCall[wire.MultiplexGenerateRequest, wire.MultiplexGenerateResponse]",
        bound: MessageBound,
    ) -> None:
        self.ended = False
        """Whether it takes no more requests."""
        self.requests = 0
        """How many were begun; the id of the last one."""
        self._rpc = rpc
        self._bound = bound
        self._retired = False
        self._calls: dict[int, MultiplexedCall] = {}
        self._outgoing: deque[wire.MultiplexGenerateRequest] = deque()
        self._size = 0
        self._has_outgoing = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        self._writing = asyncio.create_task(self._write())

    def begin(
        self, request: "GenerateRequest", size: int, timeout: float | None, metadata: dict[str, str], *, whole: bool
    ) -> MultiplexedCall:
        """Sends a request, which takes `size` bytes, with whatever else goes next."""
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
        call = self._calls[self.requests] = MultiplexedCall(self.requests, self._leave, timeout)
        return call

    def retire(self) -> None:
        """Ends it as soon as its calls have ended."""
        self._retired = True

    def cancel(self) -> None:
        """Ends it, and all calls with it."""
        self._rpc.cancel()

    def _leave(self, identifier: int) -> None:
        """Tells the server that a call is not waited for any more."""
        if self._forget(identifier):
            self._message(_CANCEL_BYTES).cancels.append(identifier)

    def _forget(self, identifier: int) -> bool:
        known = self._calls.pop(identifier, None) is not None
        if self._retired and not self._calls:
            self._has_outgoing.set()
        return known

    def _message(self, size: int) -> wire.MultiplexGenerateRequest:
        """The message that goes last, with room for `size` more bytes."""
        if self._outgoing:
            self._bound.want(self._size + size)
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
        except _BROKEN:
            pass  # the reading side gets to know why

    async def _read(self) -> None:
        error: BaseException | None = None
        try:
            while (message := await self._rpc.read()) is not grpc.aio.EOF:
                for part in cast("wire.MultiplexGenerateResponse", message).parts:
                    if (call := self._calls.get(part.id)) is not None and call.feed(part):
                        self._forget(part.id)
        except (asyncio.CancelledError, *_BROKEN) as broken:
            if cancels_task(broken):
                error = broken
                raise
            error = broken
            if _broke_in_a_write(broken):
                error = _lost("the connection broke while requests were sent")
            elif self._bound.learn(broken):
                error = _lost("the server takes smaller messages only")
        finally:
            self.ended = True
            self._has_outgoing.set()
            calls, self._calls = self._calls, {}
            for call in calls.values():
                # Whoever raises an error adds frames to it, so each call gets one of its own.
                call.end(copy.copy(error))


def _broke_in_a_write(error: BaseException) -> bool:
    """Whether an RPC ended because its connection did while grpc.aio wrote, which says INTERNAL of it (`_write`)."""
    return (
        isinstance(error, grpc.aio.AioRpcError)
        and error.code() is grpc.StatusCode.INTERNAL
        and error.details() == "Internal error from Core"
    )


def _lost(details: str) -> MultiplexedError:
    """What lets the requests be made again."""
    return MultiplexedError(grpc.StatusCode.UNAVAILABLE, details)

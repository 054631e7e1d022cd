"""One channel to one server, on one event loop."""

# ruff: noqa: ASYNC109 - the timeout is the call's deadline, which gRPC keeps and the server gets to know

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

import grpc
import grpc.aio

from doherty._core._channel import CHANNEL_OPTIONS
from doherty._core._errors import ClientClosedError, DohertyError, EventLoopError
from doherty._core._log import log_call
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.wrappers_pb2 import Int32Value, StringValue

    from doherty._core._readiness import Readiness
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse
    from doherty.v1.generation_service_pb2_grpc import GenerationServiceAsyncStub
    from doherty.v1.latency_service_pb2_grpc import LatencyServiceAsyncStub
    from doherty.v1.request_pb2 import GenerateRequest

_Request = TypeVar("_Request", bound="Message")
_Reply = TypeVar("_Reply")


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop that runs.

    Raises:
        EventLoopError: None does.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise EventLoopError("An AsyncClient works on a running event loop only: use it in a coroutine.") from None


def task_is_cancelled() -> bool:
    """Tells whether a CancelledError is meant for the running task: gRPC also raises one for a cancelled call."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


class AsyncConnection:
    """Makes calls on one channel, and raises this package's errors for those that fail."""

    def __init__(self, target: str) -> None:
        """Belongs to the running event loop. Does not connect yet: gRPC does that with the first call."""
        self.target = target
        self._loop = running_loop()
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self.generation: GenerationServiceAsyncStub = GenerationServiceStub(self._channel)
        self.latency: LatencyServiceAsyncStub = LatencyServiceStub(self._channel)
        self._streams: WeakSet[grpc.aio.Call] = WeakSet()
        self.closed = False
        """Whether `close` was called."""

    async def call(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Reply]", request: _Request, timeout: float | None
    ) -> _Reply:
        """Makes a call with one reply.

        Raises:
            DohertyError: It failed.
        """
        started = perf_counter()
        try:
            reply = await method(request, timeout=timeout)
        except asyncio.CancelledError as error:
            if task_is_cancelled():
                raise
            raise self.failed(error, request, started) from error
        except (grpc.RpcError, grpc.aio.UsageError) as error:
            raise self.failed(error, request, started) from error
        log_call(request, self.target, started, "OK")
        return reply

    def stream(
        self, request: "GenerateRequest", timeout: float | None
    ) -> "grpc.aio.UnaryStreamCall[GenerateRequest, StreamGenerateResponse]":
        """Starts a stream of replies."""
        call = self.generation.StreamGenerate(request, timeout=timeout)
        self._streams.add(call)
        return call

    async def wait_ready(self, timeout: float | None) -> None:
        """Returns when the server says that it serves.

        Raises:
            DeadlineExceededError: It did not say so in time.
            DohertyError: It has no health service, or the client was closed.
        """
        from doherty._core import _readiness  # noqa: PLC0415 - most programs never wait

        readiness = _readiness.Readiness(self.target, timeout)
        watch = self._channel.unary_stream(_readiness.WATCH, _readiness.encode_service, _readiness.decode_status)
        while not await self._watch_until_ready(watch, readiness):
            if readiness.remaining() == 0:
                raise readiness.timed_out(self.connectivity())
            await asyncio.sleep(readiness.pause())

    async def _watch_until_ready(
        self, watch: "grpc.aio.UnaryStreamMultiCallable[StringValue, Int32Value]", readiness: "Readiness"
    ) -> bool:
        self.check_usable()
        call = watch(readiness.request, timeout=readiness.remaining(), wait_for_ready=True)
        self._streams.add(call)
        try:
            async for status in call:
                if readiness.is_serving(status):
                    return True
        except asyncio.CancelledError as error:
            if task_is_cancelled():
                raise
            raise self.explain(error) from error
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise readiness.timed_out(self.connectivity()) from error
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise self.explain(error) from error
            readiness.saw(f"UNAVAILABLE: {error.details()}")
        finally:
            call.cancel()
        return False

    def failed(self, error: BaseException, request: "Message", started: float, *, begun: bool = False) -> DohertyError:
        """Logs a call that failed, and makes the error to raise for it."""
        outcome = error.code().name if isinstance(error, grpc.RpcError) else "closed"
        log_call(request, self.target, started, outcome)
        return self.explain(error, begun=begun)

    def explain(self, error: BaseException, *, begun: bool = False) -> DohertyError:
        """Makes the error to raise for what gRPC raised."""
        from doherty._core._translate import answered, translate  # noqa: PLC0415 - only a failed call pays for it

        if self.closed:
            # Closing the channel cancels what runs on it, and a call on a closed channel is a UsageError.
            return ClientClosedError("The client was closed.")
        if not isinstance(error, grpc.RpcError):
            raise error
        lost = error.code() is grpc.StatusCode.UNAVAILABLE and not answered(error)
        connectivity = self.connectivity() if lost else "READY"
        return translate(error, target=self.target, connectivity=connectivity, begun=begun)

    def connectivity(self) -> str:
        """The state of the channel."""
        return self._channel.get_state().name

    def check_usable(self) -> None:
        """Checks that calls can be made.

        Raises:
            EventLoopError: Another event loop runs, on which they would hang.
            ClientClosedError: `close` was called.
        """
        if running_loop() is not self._loop:
            raise EventLoopError(
                "The AsyncClient belongs to the event loop that first used it: make one for each loop, or use Client."
            )
        if self.closed:
            raise ClientClosedError("The client is closed: make a new one.")

    async def close(self) -> None:
        """Cancels what runs and gives the connection up."""
        self.closed = True
        # gRPC 1.71 finds only the calls that some task stands in, and of these no stream that is read with read().
        for call in self._streams:
            call.cancel()
        await self._channel.close()

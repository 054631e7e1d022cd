"""One channel to one server."""

import threading
import weakref
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from doherty._core._channel import CHANNEL_OPTIONS
from doherty._core._errors import ClientClosedError, DohertyError
from doherty._core._log import log_call
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message
    from google.protobuf.wrappers_pb2 import Int32Value, StringValue

    from doherty._core._readiness import Readiness
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse
    from doherty.v1.request_pb2 import GenerateRequest

_Request = TypeVar("_Request", bound="Message")
_Reply = TypeVar("_Reply")

_STATE_TIMEOUT: Final = 0.5


class Connection:
    """Makes calls on one channel, and raises this package's errors for those that fail."""

    def __init__(self, target: str) -> None:
        """Does not connect yet: gRPC does that with the first call."""
        self.target = target
        self._channel = grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        self.generation = GenerationServiceStub(self._channel)
        self.latency = LatencyServiceStub(self._channel)
        self._closed = threading.Event()
        # A channel whose state was asked for and that is still open when the interpreter ends makes gRPC wait for ever
        # for a thread that is gone. This closes it before, or when the client is dropped.
        self._close_channel = weakref.finalize(self, self._channel.close)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def call(
        self, method: "grpc.UnaryUnaryMultiCallable[_Request, _Reply]", request: _Request, timeout: float | None
    ) -> _Reply:
        """Makes a call with one reply.

        Raises:
            DohertyError: It failed.
        """
        self.check_open()
        started = perf_counter()
        try:
            reply = method(request, timeout=timeout)
        except (grpc.RpcError, ValueError) as error:
            raise self.failed(error, request, started) from error
        log_call(request, self.target, started, "OK")
        return reply

    def stream(self, request: "GenerateRequest", timeout: float | None) -> "Iterator[StreamGenerateResponse]":
        """Starts a stream of replies.

        Raises:
            DohertyError: The client is closed.
        """
        self.check_open()
        started = perf_counter()
        try:
            return self.generation.StreamGenerate(request, timeout=timeout)
        except ValueError as error:
            raise self.failed(error, request, started) from error

    def wait_ready(self, timeout: float | None) -> None:
        """Returns when the server says that it serves.

        Raises:
            DeadlineExceededError: It did not say so in time.
            DohertyError: It has no health service, or the client was closed.
        """
        from doherty._core import _readiness  # noqa: PLC0415 - most programs never wait

        readiness = _readiness.Readiness(self.target, timeout)
        watch = self._channel.unary_stream(_readiness.WATCH, _readiness.encode_service, _readiness.decode_status)
        while not self._watch_until_ready(watch, readiness):
            if readiness.remaining() == 0:
                raise readiness.timed_out(self.connectivity())
            self._closed.wait(readiness.pause())

    def _watch_until_ready(
        self, watch: "grpc.UnaryStreamMultiCallable[StringValue, Int32Value]", readiness: "Readiness"
    ) -> bool:
        self.check_open()
        call = watch(readiness.request, timeout=readiness.remaining(), wait_for_ready=True)
        try:
            return any(map(readiness.is_serving, call))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise readiness.timed_out(self.connectivity()) from error
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise self.explain(error) from error
            readiness.saw(f"UNAVAILABLE: {error.details()}")
            return False
        finally:
            call.cancel()

    def failed(
        self, error: grpc.RpcError | ValueError, request: "Message", started: float, *, begun: bool = False
    ) -> DohertyError:
        """Logs a call that failed, and makes the error to raise for it."""
        outcome = error.code().name if isinstance(error, grpc.RpcError) else "closed"
        log_call(request, self.target, started, outcome)
        return self.explain(error, begun=begun)

    def explain(self, error: grpc.RpcError | ValueError, *, begun: bool = False) -> DohertyError:
        """Makes the error to raise for what gRPC raised."""
        from doherty._core._translate import answered, translate  # noqa: PLC0415 - only a failed call pays for it

        if self.closed:
            # Closing the channel cancels what runs on it, and a call on a closed channel is a ValueError.
            return ClientClosedError("The client was closed.")
        if isinstance(error, ValueError):
            raise error
        lost = error.code() is grpc.StatusCode.UNAVAILABLE and not answered(error)
        connectivity = self.connectivity() if lost else "READY"
        return translate(error, target=self.target, connectivity=connectivity, begun=begun)

    def connectivity(self) -> str:
        """The state of the channel, which gRPC tells to subscribers only."""
        states: list[grpc.ChannelConnectivity] = []
        told = threading.Event()

        def on_state(state: grpc.ChannelConnectivity) -> None:
            states.append(state)
            told.set()

        self._channel.subscribe(on_state)
        told.wait(_STATE_TIMEOUT)
        self._channel.unsubscribe(on_state)
        return states[0].name if states else "unknown"

    def check_open(self) -> None:
        """Raises ClientClosedError after `close`."""
        if self.closed:
            raise ClientClosedError("The client is closed: make a new one.")

    def close(self) -> None:
        """Cancels what runs and gives the connection up."""
        self._closed.set()
        self._close_channel()

"""One channel to one target, on one event loop."""

from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import grpc.aio

from doherty._core._channel import channel_options
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doherty._aio._multiplexed import MultiplexedCall
    from doherty._aio._tasks import Tasks
    from doherty._core._actions import Rpc
    from doherty._core._settings import Settings
    from doherty.v1.generation_service_pb2_grpc import GenerationServiceAsyncStub
    from doherty.v1.latency_service_pb2_grpc import LatencyServiceAsyncStub


class AsyncConnection:
    """The channel to one target."""

    def __init__(self, target: str, settings: "Settings", tasks: "Tasks") -> None:
        """Belongs to the running event loop. Does not connect yet: gRPC does that with the first call.

        Args:
            target: The server.
            settings: The client's settings.
            tasks: The client's tasks.
        """
        options = channel_options(target, weighted=settings.weighted, chosen=settings.channel_options)
        interceptors = cast("Sequence[grpc.aio.ClientInterceptor]", settings.interceptors)
        self.tasks = tasks
        self.channel = (
            grpc.aio.insecure_channel(target, options, interceptors=interceptors)
            if settings.credentials is None
            else grpc.aio.secure_channel(target, settings.credentials, options, interceptors=interceptors)
        )
        self.generation: GenerationServiceAsyncStub = GenerationServiceStub(self.channel)
        self._latency: LatencyServiceAsyncStub = LatencyServiceStub(self.channel)
        self.streams: WeakSet[grpc.aio.Call | MultiplexedCall] = WeakSet()
        """The running streams and shared RPCs, which `close` cancels."""

    def rpc(self, name: "Rpc") -> Any:
        """Returns the callable of a method."""
        match name:
            case "Check":
                from doherty._core._health import CHECK, decode_status, encode_service  # noqa: PLC0415 - most never ask

                return self.channel.unary_unary(CHECK, encode_service, decode_status)
            case "GetLatency":
                return self._latency.GetLatency
        return getattr(self.generation, name)

    async def close(self) -> None:
        """Cancels all calls and closes the channel."""
        # gRPC 1.71 cancels only calls that a task awaits, but not streams that are read with read().
        for call in self.streams:
            call.cancel()
        await self.channel.close()

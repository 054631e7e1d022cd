"""One channel to one target, on one event loop."""

from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import grpc.aio

from doherty._core._channel import channel_options, is_several
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub

if TYPE_CHECKING:
    from doherty._aio._multiplex import Multiplexer
    from doherty._aio._multiplexed import MultiplexedCall
    from doherty._core._actions import Rpc
    from doherty._core._settings import Settings
    from doherty.v1.generation_service_pb2_grpc import GenerationServiceAsyncStub
    from doherty.v1.latency_service_pb2_grpc import LatencyServiceAsyncStub


class AsyncConnection:
    """The channel to one target."""

    def __init__(self, target: str, settings: "Settings", *, multiplex: bool | int) -> None:
        """Belongs to the running event loop. Does not connect yet: gRPC does that with the first call.

        Args:
            target: The address.
            settings: Those of the client.
            multiplex: Whether requests share one RPC, or how many do.
        """
        options = channel_options(target, weighted=settings.weighted)
        self._channel = (
            grpc.aio.insecure_channel(target, options)
            if settings.credentials is None
            else grpc.aio.secure_channel(target, settings.credentials, options)
        )
        self._generation: GenerationServiceAsyncStub = GenerationServiceStub(self._channel)
        self._multiplexer = _multiplexer(self._generation, target, settings, multiplex=multiplex) if multiplex else None
        self._latency: LatencyServiceAsyncStub = LatencyServiceStub(self._channel)
        self.streams: WeakSet[grpc.aio.Call | MultiplexedCall] = WeakSet()
        """The running streams, which `close` cancels."""

    def rpc(self, name: "Rpc") -> Any:
        """The callable for a method."""
        match name:
            case "Check":
                from doherty._core._health import CHECK, decode_status, encode_service  # noqa: PLC0415 - most never ask

                return self._channel.unary_unary(CHECK, encode_service, decode_status)
            case "GetLatency":
                return self._latency.GetLatency
            case "Generate" | "StreamGenerate" if self._multiplexer is not None:
                return getattr(self._multiplexer, name)
        return getattr(self._generation, name)

    def connectivity(self) -> str:
        """The state of the channel."""
        return self._channel.get_state().name

    async def close(self) -> None:
        """Cancels all calls and closes the channel."""
        # gRPC 1.71 finds only calls that a task awaits, and no streams that are read with read().
        for call in self.streams:
            call.cancel()
        if self._multiplexer is not None:
            self._multiplexer.close()
        await self._channel.close()


def _multiplexer(
    stub: "GenerationServiceAsyncStub", target: str, settings: "Settings", *, multiplex: bool | int
) -> "Multiplexer":
    from doherty._aio._multiplex import TURN, Multiplexer  # noqa: PLC0415 - only who asks for it pays for it

    if multiplex is not True:
        return Multiplexer(stub, settings.metadata, multiplex)
    return Multiplexer(stub, settings.metadata, TURN if is_several(target) else inf)

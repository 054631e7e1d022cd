"""One channel to one target."""

import os
import weakref
from typing import TYPE_CHECKING, Any, cast

import grpc

from doherty._core._channel import channel_options
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doherty._core._actions import Rpc
    from doherty._core._channel import Interceptor
    from doherty._core._settings import Settings


class Connection:
    """The channel to one target."""

    def __init__(self, target: str, settings: "Settings") -> None:
        """Does not connect yet: gRPC does that with the first call."""
        options = channel_options(target, weighted=settings.weighted, chosen=settings.channel_options)
        channel = (
            grpc.insecure_channel(target, options)
            if settings.credentials is None
            else grpc.secure_channel(target, settings.credentials, options)
        )
        interceptors = cast("Sequence[Interceptor]", settings.interceptors)
        self._channel = grpc.intercept_channel(channel, *interceptors) if interceptors else channel
        self._generation = GenerationServiceStub(self._channel)
        self._latency = LatencyServiceStub(self._channel)
        # Also closes the channel when the client is dropped, and at the end of the program.
        self.close = weakref.finalize(self, _close, self._channel, os.getpid())

    def rpc(self, name: "Rpc") -> Any:
        """The callable for a method."""
        if name == "Check":
            from doherty._core._health import CHECK, decode_status, encode_service  # noqa: PLC0415 - most never ask

            return self._channel.unary_unary(CHECK, encode_service, decode_status)
        return getattr(self._latency if name == "GetLatency" else self._generation, name)


def _close(channel: grpc.Channel, pid: int) -> None:
    # A fork does not have the channel's threads.
    if os.getpid() == pid:
        channel.close()

"""Lists every RPC that a server offers, as described by its reflection service."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


@dataclass(frozen=True)
class Rpc:
    """A method of a service."""

    path: str
    """For example "/doherty.v1.GenerationService/Generate"."""
    request: Descriptor
    streams_requests: bool
    streams_replies: bool
    endless: bool
    """Whether the stream of replies never ends by itself; the call is then cancelled after the first reply."""

    def open(self, channel: grpc.Channel) -> Callable[..., Any]:
        """Returns gRPC's callable for the method, with bytes as requests and replies."""
        kinds: dict[tuple[bool, bool], Callable[[str], Any]] = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
            (True, True): channel.stream_stream,
        }
        method: Callable[..., Any] = kinds[self.streams_requests, self.streams_replies](self.path)
        return method


def offered(target: str) -> list[Rpc]:
    """Asks a server for its services. The test knows nothing else about them."""
    with grpc.insecure_channel(target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        names = sorted(database.get_services())
        services = [pool.FindServiceByName(name) for name in names]
        return [
            Rpc(
                path=f"/{service.full_name}/{method.name}",
                request=method.input_type,
                streams_requests=method.client_streaming,
                streams_replies=method.server_streaming,
                endless=method.full_name == "grpc.health.v1.Health.Watch",
            )
            for service in services
            for method in service.methods
        ]

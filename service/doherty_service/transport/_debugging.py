"""The services for debugging tools: both versions of reflection, and channelz."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_channelz.v1.channelz import ChannelzServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

from doherty_service.transport._rpc_server import RpcServer

_PAUSE_FACTOR = 10
"""After a channelz call we pause for this many times its duration."""

_V1_SERVICE = "grpc.reflection.v1.ServerReflection"

REFLECTION_SERVICES = (reflection.SERVICE_NAME, _V1_SERVICE)
CHANNELZ_SERVICE = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


def add_reflection(server: RpcServer, service_names: Sequence[str]) -> None:
    """Adds reflection for the named services."""
    _add_v1_descriptor()
    # grpcio-reflection implements only v1alpha, but new tools try v1 first. The versions differ only in their names.
    method = grpc.stream_stream_rpc_method_handler(
        reflection_aio.ReflectionServicer(service_names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = [
        grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in REFLECTION_SERVICES
    ]
    server.add_generic_rpc_handlers(handlers)


def add_channelz(server: RpcServer) -> None:
    """Adds channelz, with pauses between calls.

    With 800 connections, gRPC's core needs 0.1 s for a reply and holds the GIL meanwhile. So calls run one by one in a
    thread, and the next one has to wait.
    """
    lock = asyncio.Lock()

    def in_thread(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def run(request: Any, context: Any) -> Any:
            await lock.acquire()
            start = time.monotonic()
            try:
                return await asyncio.to_thread(method, request, context)
            finally:
                asyncio.get_running_loop().call_later(_PAUSE_FACTOR * (time.monotonic() - start), lock.release)

        return run

    servicer = channelz_pb2_grpc.ChannelzServicer()
    for method in channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].methods:
        setattr(servicer, method.name, in_thread(getattr(ChannelzServicer, method.name)))
    handlers: Any = server  # the types know grpc.Server only
    channelz_pb2_grpc.add_ChannelzServicer_to_server(servicer, handlers)


def _add_v1_descriptor() -> None:
    """Adds the v1 service to the descriptor pool, so that tools can describe it."""
    v1alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    v1 = FileDescriptorProto()
    json_format.Parse(json_format.MessageToJson(v1alpha).replace("v1alpha", "v1"), v1)
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())

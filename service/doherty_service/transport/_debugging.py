"""The doors for tools: reflection in both its versions, and channelz."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_channelz.v1.channelz import ChannelzServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

_REST = 10
"""After a reply of channelz, no other one is made for so many times as long."""

_OLD = "grpc.reflection.v1alpha"
_NEW = "grpc.reflection.v1"
_NEW_SERVICE = f"{_NEW}.ServerReflection"


REFLECTION_SERVICES = (reflection.SERVICE_NAME, _NEW_SERVICE)
CHANNELZ_SERVICE = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


def add_reflection(server: grpc.aio.Server, service_names: Sequence[str]) -> None:
    """Adds reflection for the named services, which should be all that the server has."""
    _add_v1_descriptor()
    reflection.enable_server_reflection(service_names, server)
    # grpcio-reflection speaks v1alpha only, and new tools ask for v1 first: on the wire the two differ in name alone.
    method = grpc.stream_stream_rpc_method_handler(
        reflection_aio.ReflectionServicer(service_names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(_NEW_SERVICE, {"ServerReflectionInfo": method})
    server.add_generic_rpc_handlers((handler,))


def add_channelz(server: grpc.aio.Server) -> None:
    """Adds channelz.

    With 800 connections core takes 0.1 s to make a reply, in which no Python runs: then others wait for ten times that.
    """
    turn = asyncio.Lock()

    def aside(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def run(request: Any, context: Any) -> Any:
            await turn.acquire()
            begun = time.monotonic()
            try:
                return await asyncio.to_thread(answer, request, context)
            finally:
                asyncio.get_running_loop().call_later(_REST * (time.monotonic() - begun), turn.release)

        return run

    servicer = channelz_pb2_grpc.ChannelzServicer()
    for method in channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].methods:
        setattr(servicer, method.name, aside(getattr(ChannelzServicer, method.name)))
    channelz_pb2_grpc.add_ChannelzServicer_to_server(servicer, server)


def _add_v1_descriptor() -> None:
    """Makes the v1 service known to the descriptor pool, so that tools can describe it too."""
    old = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(old)
    new = FileDescriptorProto()
    json_format.Parse(json_format.MessageToJson(old).replace("v1alpha", "v1"), new)
    descriptor_pool.Default().AddSerializedFile(new.SerializeToString())

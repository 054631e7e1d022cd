"""The doors for tools: reflection in both its versions, and channelz."""

from collections.abc import Sequence

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import add_channelz_servicer
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection_aio

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
    """Adds channelz."""
    add_channelz_servicer(server)


def _add_v1_descriptor() -> None:
    """Makes the v1 service known to the descriptor pool, so that tools can describe it too."""
    old = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(old)
    new = FileDescriptorProto()
    json_format.Parse(json_format.MessageToJson(old).replace("v1alpha", "v1"), new)
    descriptor_pool.Default().AddSerializedFile(new.SerializeToString())

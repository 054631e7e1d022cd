"""ORCA's messages, built from our own descriptors, because their package hides the others under `google`."""

from contextlib import suppress
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from doherty.v1.generation_service_pb2 import GenerateResponse
from doherty.v1.request_pb2 import GenerateRequest

STREAM = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"

_Field = descriptor_pb2.FieldDescriptorProto


def _field(
    name: str, number: int, kind: "_Field.Type.ValueType", label: Any = _Field.LABEL_OPTIONAL, of: str | None = None
) -> _Field:
    return _Field(name=name, number=number, type=kind, label=label, type_name=of)


def _map(name: str) -> descriptor_pb2.DescriptorProto:
    fields = [_field("key", 1, _Field.TYPE_STRING), _field("value", 2, _Field.TYPE_DOUBLE)]
    options = descriptor_pb2.MessageOptions(map_entry=True)
    return descriptor_pb2.DescriptorProto(name=name, field=fields, options=options)


def _file() -> descriptor_pb2.FileDescriptorProto:
    doubles = {"cpu_utilization": 1, "mem_utilization": 2, "rps_fractional": 6, "eps": 7, "application_utilization": 9}
    maps = {"request_cost": (4, "RequestCostEntry"), "utilization": (5, "UtilizationEntry")}
    maps["named_metrics"] = (8, "NamedMetricsEntry")
    report = descriptor_pb2.DescriptorProto(
        name="OrcaLoadReport",
        field=[
            _field("rps", 3, _Field.TYPE_UINT64),
            *(_field(name, number, _Field.TYPE_DOUBLE) for name, number in doubles.items()),
            *(
                _field(
                    name, number, _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED, f".xds.data.orca.v3.OrcaLoadReport.{of}"
                )
                for name, (number, of) in maps.items()
            ),
        ],
        nested_type=[_map(of) for _, of in maps.values()],
    )
    return descriptor_pb2.FileDescriptorProto(
        name="xds/data/orca/v3/orca_load_report.proto",
        package="xds.data.orca.v3",
        syntax="proto3",
        message_type=[report],
    )


def _load_report() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


LoadReport = _load_report()
"""The class of xds.data.orca.v3.OrcaLoadReport."""


async def load_report(target: str, request: GenerateRequest, *metadata: tuple[str, str]) -> Any:
    """Returns the load report in the trailers of a Generate; None if there is none.

    Uses grpclib, because gRPC's core does not pass this metadata on.
    """
    host, _, port = target.rpartition(":")
    method = "/doherty.v1.GenerationService/Generate"
    async with (
        Channel(host, int(port)) as channel,
        channel.request(
            method, Cardinality.UNARY_UNARY, GenerateRequest, GenerateResponse, metadata=metadata, timeout=30
        ) as stream,
    ):
        await stream.send_message(request, end=True)
        with suppress(GRPCError):
            await stream.recv_message()
            await stream.recv_trailing_metadata()
    received: Any = stream.trailing_metadata or stream.initial_metadata
    return (
        LoadReport.FromString(received["endpoint-load-metrics-bin"])
        if "endpoint-load-metrics-bin" in received
        else None
    )

"""An OTLP collector that keeps the spans that it receives."""

import queue
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as wire
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.wire import SECONDS


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans on `address`."""

    def __init__(self) -> None:
        self.address = ""
        self.resources: list[dict[str, Any]] = []
        self.raw = b""
        """All received messages as text, to check that something was never exported."""
        self._spans: queue.Queue[Span] = queue.Queue()

    def Export(self, request: wire.ExportTraceServiceRequest, context: grpc.ServicerContext) -> Any:  # noqa: N802, ARG002 - gRPC's signature
        self.raw += request.SerializeToString()
        for resource_spans in request.resource_spans:
            self.resources.append(attributes(resource_spans.resource.attributes))
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self._spans.put(span)
        return wire.ExportTraceServiceResponse()

    def next(self) -> Span:
        """Waits for the next span and returns it."""
        return self._spans.get(timeout=SECONDS)

    def is_empty(self) -> bool:
        """Whether all received spans have been taken with `next`."""
        return self._spans.empty()


def attributes(pairs: Any) -> dict[str, Any]:
    """Returns the attributes of a span, an event or a resource."""
    listed: list[KeyValue] = list(pairs)
    return {pair.key: _plain(pair.value) for pair in listed}


def _plain(value: AnyValue) -> Any:
    if value.HasField("array_value"):
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, str(value.WhichOneof("value")))


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Runs a collector on a free port of the loopback interface."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, server)
    collector.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait(SECONDS)

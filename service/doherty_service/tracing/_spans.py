"""One span per request, whose parent is the caller's span."""

import time

from opentelemetry import context as otel_context
from opentelemetry.propagate import extract
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from doherty_service.telemetry import OTHER_RPC, Metadata, RequestRecord
from doherty_service.tracing._attributes import SERVER_FAULTS, answer_attributes, call_attributes


class Spans:
    """Creates a span for each RPC of the contract and each request of a MultiplexGenerate, but not for other services.

    opentelemetry's own interceptor does not support handlers that write through their context. Spans contain no
    prompts, answers or stop texts.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def begin(self, record: RequestRecord, metadata: Metadata) -> None:
        """Starts the span of a request, and makes it the current span of the running task."""
        if record.rpc == OTHER_RPC or record.carries_requests:
            return
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        parent = extract(carrier)
        span = record.span = self._tracer.start_span(
            record.method[1:],
            parent,
            SpanKind.SERVER,
            call_attributes(record),
            start_time=_epoch() + round(record.received * 1e9),
        )
        identity = span.get_span_context()
        record.trace = (format_trace_id(identity.trace_id), format_span_id(identity.span_id))
        # There is no need to detach it, because the task of an RPC and its context end with the RPC.
        if record.call is not None:
            otel_context.attach(set_span_in_context(span, parent))

    def end(self, record: RequestRecord) -> None:
        """Ends the span of a request, at the moment at which the request ended."""
        span: Span | None = record.span
        if span is None:
            return
        epoch = _epoch()
        if span.is_recording():
            span.set_attributes(answer_attributes(record))
            span.set_status(_status(record))
            if record.first_token is not None:
                span.add_event("first_token", timestamp=epoch + round(record.first_token * 1e9))
        span.end(epoch + round((record.received + record.elapsed()) * 1e9))


def _epoch() -> int:
    """Returns the Unix time in nanoseconds at which `time.monotonic()` was 0."""
    return time.time_ns() - time.monotonic_ns()


def _status(record: RequestRecord) -> Status:
    if record.status in SERVER_FAULTS:
        return Status(StatusCode.ERROR, record.reason or None)
    return Status(StatusCode.UNSET)

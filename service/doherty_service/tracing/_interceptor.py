"""One span a call, with the caller's as its parent."""

import time
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.propagate import extract
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from doherty_service.interceptors import Around, Behavior, CallContext, Method
from doherty_service.latency import OTHER_RPC, Call, current_call
from doherty_service.tracing._attributes import SERVER_FAULTS, answer_attributes, call_attributes


class TracingInterceptor(Around):
    """Traces calls of the contract and requests of a MultiplexGenerate; health checks and reflection are left alone.

    opentelemetry's own interceptor delivers nothing for handlers that write through their context. The span is current
    while the handler runs. It has neither prompts nor answers nor stop texts.
    """

    def __init__(self, tracer: Tracer) -> None:
        """Spans are made by `tracer`."""
        self._tracer = tracer

    def wrap(self, behavior: Behavior, method: Method) -> Behavior:
        """Runs the behavior in a span."""

        async def traced(request: Any, context: CallContext) -> Any:
            call = current_call()
            if call.rpc == OTHER_RPC or call.carries_requests:
                return await behavior(request, context)
            carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            parent = extract(carrier)
            epoch = time.time_ns() - time.monotonic_ns()
            span = self._tracer.start_span(
                method.name[1:],
                parent,
                SpanKind.SERVER,
                call_attributes(call),
                start_time=epoch + round(call.received * 1e9),
            )
            identity = span.get_span_context()
            call.trace = (format_trace_id(identity.trace_id), format_span_id(identity.span_id))
            # Never detached: the call's task, and its context with it, ends with the call.
            otel_context.attach(set_span_in_context(span, parent))
            try:
                return await behavior(request, context)
            finally:
                if span.is_recording():
                    span.set_attributes(answer_attributes(call))
                    span.set_status(_status(call))
                    if call.first_token is not None:
                        span.add_event("first_token", timestamp=epoch + round(call.first_token * 1e9))
                span.end()

        return traced


def _status(call: Call) -> Status:
    return Status(StatusCode.ERROR, call.reason or None) if call.status in SERVER_FAULTS else Status(StatusCode.UNSET)

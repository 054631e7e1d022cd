"""Creates one OpenTelemetry span per generation.

The names follow OpenTelemetry's conventions for generative AI. Attributes that these do not define begin with
"doherty.". Spans contain neither prompts nor answers.
"""

from time import perf_counter
from typing import TYPE_CHECKING, Final

import grpc
from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, Status, StatusCode, get_tracer, set_span_in_context

from doherty._core._errors import RpcError, StreamError
from doherty._core._from_wire import finish_reason
from doherty._core._trace import Trace
from doherty._version import __version__

if TYPE_CHECKING:
    from doherty._core._status import Status as Failure
    from doherty.v1.answer_pb2 import Start, Summary
    from doherty.v1.request_pb2 import GenerateRequest

_Value = str | bool | int | float | list[str]

_MULTIPLEXED: Final = frozenset({"traceparent", "tracestate"})
"""The metadata for which a request of a MultiplexGenerate has fields."""

_LARGEST_INT: Final = 2**63 - 1
"""The largest integer in OTLP. The exporter logs an error for larger ones."""


class SpanTrace(Trace):
    """The span of one call."""

    def __init__(self, request: "GenerateRequest", *, stream: bool) -> None:
        """Starts the span as a child of the current one."""
        self._started = perf_counter()
        operation = "text_completion" if request.HasField("raw_text") or request.token_ids else "chat"
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.request.stream": stream,
            "rpc.method": f"doherty.v1.GenerationService/{'StreamGenerate' if stream else 'Generate'}",
            **_request(request),
        }
        name = f"{operation} {request.model}" if request.model else operation
        self._span = get_tracer("doherty", __version__).start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        context = self._span.get_span_context()
        if context.is_valid:
            self.ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        carrier: dict[str, str] = {}
        inject(carrier, set_span_in_context(self._span))
        self.metadata = tuple((key.lower(), value) for key, value in carrier.items())
        self.needs_own_rpc = not _MULTIPLEXED.issuperset(name for name, _ in self.metadata)

    def attempt(self, target: str, number: int) -> None:
        """Records the server of the next attempt."""
        address, _, port = target.rpartition(":")
        self._span.set_attribute("server.address", address)
        if port.isdigit():
            self._span.set_attribute("server.port", int(port))
        self._span.set_attribute("doherty.attempts", number)
        if number > 1:
            self._span.add_event("doherty.attempt", {"server.address": target})

    def attempt_failed(self, target: str, status: "Failure") -> None:
        """Records the error of an attempt that is not the last one."""
        attributes = {"server.address": target, **_failure(status.code, status.reason, status.request_id)}
        self._span.add_event("doherty.attempt_failed", attributes)

    def begin(self) -> None:
        """Records that the first message has arrived."""
        self._span.set_attribute("gen_ai.response.time_to_first_chunk", perf_counter() - self._started)

    def complete(self, start: "Start", summary: "Summary", *, resumed: int = 0) -> None:
        """Ends the span of an answer that is complete."""
        self._span.set_attributes(_response(start, summary))
        if resumed:
            self._span.set_attribute("doherty.resumed", resumed)
        self._span.end()

    def fail(self, error: BaseException) -> None:
        """Ends the span of a call that failed or was ended by its caller."""
        if isinstance(error, RpcError):
            self._span.set_attributes(_failure(error.code, error.reason, error.request_id))
            self._span.set_attribute("error.type", error.code.name)
        else:
            self._span.set_attribute("error.type", type(error).__qualname__)
        if isinstance(error, StreamError) and error.request_id:
            self._span.set_attribute("doherty.request_id", error.request_id)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()


def _request(request: "GenerateRequest") -> dict[str, _Value]:
    sampling, stopping = request.sampling, request.stopping
    attributes: dict[str, _Value] = {"gen_ai.provider.name": "doherty", "rpc.system.name": "grpc"}
    if request.model:
        attributes["gen_ai.request.model"] = request.model
    for name in ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty"):
        if sampling.HasField(name):
            attributes[f"gen_ai.request.{name}"] = getattr(sampling, name)
    if sampling.HasField("seed") and sampling.seed <= _LARGEST_INT:
        attributes["gen_ai.request.seed"] = sampling.seed
    if stopping.HasField("max_output_tokens"):
        attributes["gen_ai.request.max_tokens"] = stopping.max_output_tokens
    attributes["gen_ai.output.type"] = "json" if request.constraint.HasField("json_schema") else "text"
    return attributes


def _failure(code: grpc.StatusCode, reason: str | None, request_id: str | None) -> dict[str, str]:
    """Returns the attributes of an error, with the same names as in the server's spans."""
    known = {"doherty.reason": reason, "doherty.request_id": request_id}
    return {"rpc.response.status_code": code.name, **{name: value for name, value in known.items() if value}}


def _response(start: "Start", summary: "Summary") -> dict[str, _Value]:
    attributes: dict[str, _Value] = {
        "rpc.response.status_code": "OK",
        "gen_ai.response.model": start.model,
        "doherty.request_id": start.request_id,
        "gen_ai.usage.input_tokens": summary.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": summary.usage.output_tokens,
        "gen_ai.response.finish_reasons": [finish_reason(summary).value],
    }
    if summary.usage.HasField("cached_tokens"):
        attributes["gen_ai.usage.cache_read.input_tokens"] = summary.usage.cached_tokens
    return attributes

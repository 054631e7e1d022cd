"""The attributes of spans, named by OpenTelemetry's semantic conventions for RPC and for generative AI.

The conventions for generative AI are not stable, so we spell their names out instead of importing them from a package
that may drop them. Attributes that the conventions do not cover begin with "doherty.".
"""

from doherty_engine import Conversation, EngineRequest, JsonSchema
from doherty_service.telemetry import RequestRecord

Attributes = dict[str, str | bool | int | float | list[str]]

SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses that the conventions count as server errors. All others are the caller's."""

_MAX_INT = 2**63 - 1
"""The largest integer in OTLP. The exporter logs an error for larger ones."""


def call_attributes(record: RequestRecord) -> Attributes:
    """Returns the attributes that are known when a request begins."""
    return {"rpc.system.name": "grpc", "rpc.method": record.method[1:]}


def answer_attributes(record: RequestRecord) -> Attributes:
    """Returns the attributes that are known when a request ends."""
    attributes: Attributes = {
        "rpc.response.status_code": record.status,
        "doherty.request_id": record.request_id,
        **{f"doherty.{name}": seconds for name, seconds in record.spans()},
    }
    optional = {
        "doherty.reason": record.reason,
        "doherty.abort_cause": record.abort_cause and record.abort_cause.label,
        "doherty.key": record.caller.name,
    }
    attributes |= {name: text for name, text in optional.items() if text}
    if record.status in SERVER_FAULTS:
        attributes["error.type"] = record.status
    if record.engine_request is not None:
        attributes |= _request_attributes(record.engine_request, record) | _response_attributes(record)
    return attributes


def _request_attributes(request: EngineRequest, record: RequestRecord) -> Attributes:
    sampling = request.sampling
    attributes: Attributes = {
        "gen_ai.operation.name": "chat" if isinstance(request.input, Conversation) else "text_completion",
        "gen_ai.provider.name": "doherty",
        "gen_ai.request.model": record.model,
        "gen_ai.request.stream": record.is_streamed,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.output.type": "json" if isinstance(request.constraint, JsonSchema) else "text",
    }
    if sampling.top_k:
        attributes["gen_ai.request.top_k"] = sampling.top_k
    if sampling.frequency_penalty:
        attributes["gen_ai.request.frequency_penalty"] = sampling.frequency_penalty
    if sampling.presence_penalty:
        attributes["gen_ai.request.presence_penalty"] = sampling.presence_penalty
    if sampling.temperature > 0 and sampling.seed <= _MAX_INT:
        attributes["gen_ai.request.seed"] = sampling.seed
    if request.stopping.max_output_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = request.stopping.max_output_tokens
    return attributes


def _response_attributes(record: RequestRecord) -> Attributes:
    attributes: Attributes = {
        "gen_ai.response.id": record.key,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.output_tokens": record.output_tokens,
    }
    if record.prompt_tokens is not None:
        attributes["gen_ai.usage.input_tokens"] = record.prompt_tokens
    if record.cached_tokens is not None:
        attributes["gen_ai.usage.cache_read.input_tokens"] = record.cached_tokens
    if record.finish_reason is not None:
        attributes["gen_ai.response.finish_reasons"] = [record.finish_reason]
    if record.is_streamed and record.time_to_first_token is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = record.time_to_first_token
    return attributes

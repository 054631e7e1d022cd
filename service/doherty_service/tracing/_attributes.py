"""What a span tells, in the words of OpenTelemetry's conventions for RPC and for generative AI.

The latter are not stable yet, so their names stand here and not in a package that may drop them. What they have no
name for begins with "doherty.".
"""

from doherty_engine import Conversation, EngineRequest, JsonSchema
from doherty_service.telemetry import RequestRecord

Attributes = dict[str, str | bool | int | float | list[str]]

SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The statuses that the conventions count as errors of a server; all others are the caller's."""

_LARGEST_INT = 2**63 - 1
"""Of OTLP; a larger one is an error in the exporter's log."""


def call_attributes(record: RequestRecord) -> Attributes:
    """What is known of a request at its beginning."""
    return {"rpc.system.name": "grpc", "rpc.method": record.method[1:]}


def answer_attributes(record: RequestRecord) -> Attributes:
    """What is known of a request at its end."""
    found: Attributes = {
        "rpc.response.status_code": record.status,
        "doherty.request_id": record.request_id,
        **{f"doherty.{name}": seconds for name, seconds in record.spans()},
    }
    told = {
        "doherty.reason": record.reason,
        "doherty.abort_cause": record.abort_cause and record.abort_cause.label,
        "doherty.key": record.caller.name,
    }
    found |= {name: text for name, text in told.items() if text}
    if record.status in SERVER_FAULTS:
        found["error.type"] = record.status
    if record.engine_request is not None:
        found |= _request(record.engine_request, record) | _response(record)
    return found


def _request(asked: EngineRequest, record: RequestRecord) -> Attributes:
    sampling = asked.sampling
    found: Attributes = {
        "gen_ai.operation.name": "chat" if isinstance(asked.input, Conversation) else "text_completion",
        "gen_ai.provider.name": "doherty",
        "gen_ai.request.model": record.model,
        "gen_ai.request.stream": record.is_streamed,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.output.type": "json" if isinstance(asked.constraint, JsonSchema) else "text",
    }
    if sampling.top_k:
        found["gen_ai.request.top_k"] = sampling.top_k
    if sampling.frequency_penalty:
        found["gen_ai.request.frequency_penalty"] = sampling.frequency_penalty
    if sampling.presence_penalty:
        found["gen_ai.request.presence_penalty"] = sampling.presence_penalty
    if sampling.temperature > 0 and sampling.seed <= _LARGEST_INT:
        found["gen_ai.request.seed"] = sampling.seed
    if asked.stopping.max_output_tokens is not None:
        found["gen_ai.request.max_tokens"] = asked.stopping.max_output_tokens
    return found


def _response(record: RequestRecord) -> Attributes:
    found: Attributes = {
        "gen_ai.response.id": record.key,
        "gen_ai.response.model": record.model,
        "gen_ai.usage.output_tokens": record.output_tokens,
    }
    if record.prompt_tokens is not None:
        found["gen_ai.usage.input_tokens"] = record.prompt_tokens
    if record.cached_tokens is not None:
        found["gen_ai.usage.cache_read.input_tokens"] = record.cached_tokens
    if record.finish_reason is not None:
        found["gen_ai.response.finish_reasons"] = [record.finish_reason]
    if record.is_streamed and record.time_to_first_token is not None:
        found["gen_ai.response.time_to_first_chunk"] = record.time_to_first_token
    return found

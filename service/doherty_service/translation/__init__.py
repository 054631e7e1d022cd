"""The one place where messages on the wire become dataclasses, and the other way."""

from doherty_service.translation._answers import (
    abort_count,
    default_sampling,
    delta,
    duration,
    features,
    latency,
    limits,
    start,
    summary,
    token_logprobs,
)
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._requests import count_tokens_input, engine_request, take_label, ticket
from doherty_service.translation._violations import Violations

__all__ = [
    "Deployment",
    "Violations",
    "abort_count",
    "count_tokens_input",
    "default_sampling",
    "delta",
    "duration",
    "engine_request",
    "features",
    "latency",
    "limits",
    "start",
    "summary",
    "take_label",
    "ticket",
    "token_logprobs",
]

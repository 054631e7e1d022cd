"""The one place where messages on the wire become dataclasses, and the other way."""

from doherty_service.translation._answers import (
    abort_count,
    default_sampling,
    duration,
    features,
    latency,
    limits,
    put_timings,
)
from doherty_service.translation._deployment import Deployment
from doherty_service.translation._messages import AnswerMessages
from doherty_service.translation._requests import (
    check_multiplex,
    count_tokens_input,
    engine_request,
    take_label,
    ticket,
)
from doherty_service.translation._violations import Violations

__all__ = [
    "AnswerMessages",
    "Deployment",
    "Violations",
    "abort_count",
    "check_multiplex",
    "count_tokens_input",
    "default_sampling",
    "duration",
    "engine_request",
    "features",
    "latency",
    "limits",
    "put_timings",
    "take_label",
    "ticket",
]

"""Translates between protobuf messages and the engine's dataclasses. No other package knows both."""

from doherty_service.translation._deployment import Deployment
from doherty_service.translation._model_and_latency import (
    abort_count,
    default_sampling,
    duration,
    features,
    latency,
    limits,
)
from doherty_service.translation._multiplex import check_multiplex, check_multiplex_size, check_start
from doherty_service.translation._replies import (
    delta_message,
    multiplex_admission,
    multiplex_failure,
    multiplex_part,
    stream_message,
    whole_message,
    whole_stream_message,
)
from doherty_service.translation._requests import RequestReader, count_tokens_input, take_label
from doherty_service.translation._size import SMALL_BYTES, check_size, register_service
from doherty_service.translation._unknown import refuse_unknown
from doherty_service.translation._violations import Violations

__all__ = [
    "SMALL_BYTES",
    "Deployment",
    "RequestReader",
    "Violations",
    "abort_count",
    "check_multiplex",
    "check_multiplex_size",
    "check_size",
    "check_start",
    "count_tokens_input",
    "default_sampling",
    "delta_message",
    "duration",
    "features",
    "latency",
    "limits",
    "multiplex_admission",
    "multiplex_failure",
    "multiplex_part",
    "refuse_unknown",
    "register_service",
    "stream_message",
    "take_label",
    "whole_message",
    "whole_stream_message",
]

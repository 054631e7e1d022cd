"""Records of requests, statistics over many requests, and the log."""

from doherty_service.telemetry._awake import awake
from doherty_service.telemetry._causes import REFUSALS, AbortCause
from doherty_service.telemetry._histogram import BOUNDS, Histogram
from doherty_service.telemetry._log import LogWriter, log_error, log_event, log_warning, set_up_logging
from doherty_service.telemetry._origin import name_instance
from doherty_service.telemetry._rate import LineLimit
from doherty_service.telemetry._record import (
    ANSWERING_RPCS,
    GENERATE,
    MULTIPLEX,
    OTHER_RPC,
    RPCS,
    STREAM_GENERATE,
    Metadata,
    RequestRecord,
    new_key,
)
from doherty_service.telemetry._recorder import LatencyRecorder, TokenKind
from doherty_service.telemetry._request_line import request_line
from doherty_service.telemetry._window import THRESHOLD, Quantiles, Snapshot, Tally, quantiles

__all__ = [
    "ANSWERING_RPCS",
    "BOUNDS",
    "GENERATE",
    "MULTIPLEX",
    "OTHER_RPC",
    "REFUSALS",
    "RPCS",
    "STREAM_GENERATE",
    "THRESHOLD",
    "AbortCause",
    "Histogram",
    "LatencyRecorder",
    "LineLimit",
    "LogWriter",
    "Metadata",
    "Quantiles",
    "RequestRecord",
    "Snapshot",
    "Tally",
    "TokenKind",
    "awake",
    "log_error",
    "log_event",
    "log_warning",
    "name_instance",
    "new_key",
    "quantiles",
    "request_line",
    "set_up_logging",
]

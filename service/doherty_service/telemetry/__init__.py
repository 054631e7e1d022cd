"""What the server notes and tells: records of requests, the rolling window over many, and the log."""

from doherty_service.telemetry._causes import AbortCause
from doherty_service.telemetry._log import LogWriter, log_error, log_event, log_warning, set_up_logging
from doherty_service.telemetry._rate import LineLimit
from doherty_service.telemetry._record import MULTIPLEX, OTHER_RPC, RequestRecord, new_key
from doherty_service.telemetry._recorder import (
    BOUNDS,
    THRESHOLD,
    Histogram,
    LatencyRecorder,
    Quantiles,
    Snapshot,
    TokenKind,
    quantiles,
)
from doherty_service.telemetry._request_line import request_line

__all__ = [
    "BOUNDS",
    "MULTIPLEX",
    "OTHER_RPC",
    "THRESHOLD",
    "AbortCause",
    "Histogram",
    "LatencyRecorder",
    "LineLimit",
    "LogWriter",
    "Quantiles",
    "RequestRecord",
    "Snapshot",
    "TokenKind",
    "log_error",
    "log_event",
    "log_warning",
    "new_key",
    "quantiles",
    "request_line",
    "set_up_logging",
]

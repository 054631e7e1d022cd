"""How long requests take: the marks of one call, and the rolling window over many."""

from doherty_service.latency._call import MULTIPLEX, OTHER_RPC, Call, current_call, set_current_call
from doherty_service.latency._causes import AbortCause
from doherty_service.latency._histogram import BOUNDS, Histogram
from doherty_service.latency._recorder import (
    THRESHOLD,
    LatencyRecorder,
    Quantiles,
    Snapshot,
    TokenKind,
    quantiles,
)

__all__ = [
    "BOUNDS",
    "MULTIPLEX",
    "OTHER_RPC",
    "THRESHOLD",
    "AbortCause",
    "Call",
    "Histogram",
    "LatencyRecorder",
    "Quantiles",
    "Snapshot",
    "TokenKind",
    "current_call",
    "quantiles",
    "set_current_call",
]

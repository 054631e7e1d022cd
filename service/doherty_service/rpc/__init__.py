"""What every RPC goes through, whatever its method."""

from doherty_service.rpc._failures import note_failure, note_leaving
from doherty_service.rpc._interceptor import LatencyInterceptor
from doherty_service.rpc._receiving import ReceiveWatch, parse_message
from doherty_service.rpc._reporter import Metadata, Reporter

__all__ = [
    "LatencyInterceptor",
    "Metadata",
    "ReceiveWatch",
    "Reporter",
    "note_failure",
    "note_leaving",
    "parse_message",
]

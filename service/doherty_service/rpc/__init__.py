"""What surrounds the handlers of all RPCs: the interceptor and its parts."""

from doherty_service.rpc._end_watch import EndWatch
from doherty_service.rpc._failures import note_failure, note_leaving
from doherty_service.rpc._grpcio_call import GrpcioCall, note_handler
from doherty_service.rpc._interceptor import LatencyInterceptor, Method
from doherty_service.rpc._receiving import ReceiveWatch, parse_message
from doherty_service.rpc._reporter import Reporter
from doherty_service.rpc._turns import Turns

__all__ = [
    "EndWatch",
    "GrpcioCall",
    "LatencyInterceptor",
    "Method",
    "ReceiveWatch",
    "Reporter",
    "Turns",
    "note_failure",
    "note_handler",
    "note_leaving",
    "parse_message",
]

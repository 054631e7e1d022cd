"""What stands round every handler, outermost first: request id, latency, error mapping, authentication, receiving."""

from doherty_service.interceptors._authentication import AuthenticationInterceptor
from doherty_service.interceptors._errors import ErrorInterceptor
from doherty_service.interceptors._handlers import (
    Around,
    Behavior,
    CallContext,
    Method,
    SurroundingInterceptor,
    surround,
)
from doherty_service.interceptors._latency import LatencyInterceptor
from doherty_service.interceptors._receiving import ReceivingInterceptor
from doherty_service.interceptors._request_id import RequestIdInterceptor

__all__ = [
    "Around",
    "AuthenticationInterceptor",
    "Behavior",
    "CallContext",
    "ErrorInterceptor",
    "LatencyInterceptor",
    "Method",
    "ReceivingInterceptor",
    "RequestIdInterceptor",
    "SurroundingInterceptor",
    "surround",
]

"""What stands round every handler, outermost first: request id, latency, error mapping."""

from doherty_service.interceptors._errors import ErrorInterceptor
from doherty_service.interceptors._handlers import Around, Behavior, Method, ServicerContext
from doherty_service.interceptors._latency import LatencyInterceptor
from doherty_service.interceptors._request_id import RequestIdInterceptor

__all__ = [
    "Around",
    "Behavior",
    "ErrorInterceptor",
    "LatencyInterceptor",
    "Method",
    "RequestIdInterceptor",
    "ServicerContext",
]

"""gRPC on our own HTTP/2 transport: libnghttp2 driven by the event loop (experimental)."""

from doherty_service.http2._limits import Limits
from doherty_service.http2._server import Http2Server
from doherty_service.http2._timeouts import Timeouts

__all__ = ["Http2Server", "Limits", "Timeouts"]

"""A small HTTP server for a WSGI application, with limits so that no client can lock out the others."""

import socket
import sys
import threading
import time
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_MAX_CONNECTIONS = 16
"""Each connection has a thread."""
_MAX_SECONDS = 10.0
"""Maximum duration of a connection, from its start to the end of its response."""


def start_http(host: str, port: int, application: "WSGIApplication") -> int:
    """Serves in separate threads until the process ends, and returns the port.

    A connection has ten seconds for one request and its response. If there are more than 16, the oldest is closed.

    Raises:
        OSError: The server cannot listen on the address.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    server_class = type("_Server", (_Server,), {"address_family": family})
    server: WSGIServer = make_server(str(address[0]), port, application, server_class, _Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Logs nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._start_times: dict[socket.socket, float] = {}
        """When each open connection was accepted, the oldest first."""
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection."""
        with self._lock:
            self._start_times[request] = time.monotonic()
            if len(self._start_times) > _MAX_CONNECTIONS:
                self._end(next(iter(self._start_times)))
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Ends connections that take too long. `serve_forever` calls this twice per second."""
        with self._lock:
            earliest = time.monotonic() - _MAX_SECONDS
            for connection in [connection for connection, start in self._start_times.items() if start < earliest]:
                self._end(connection)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection at the end of its thread."""
        with self._lock:
            self._start_times.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports an exception, unless the connection was lost or was ended by us."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _end(self, request: socket.socket) -> None:
        """Shuts a connection down, which its thread notices."""
        del self._start_times[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

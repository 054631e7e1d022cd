"""Serves a WSGI application over HTTP to few callers, none of whom can take the place of the others."""

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

_MOST_CONNECTIONS = 16
"""Each has a thread."""
_MOST_SECONDS = 10.0
"""From a connection to the end of its answer."""


def start_http(host: str, port: int, application: "WSGIApplication") -> int:
    """Serves in threads until the process ends, and returns the port.

    A connection has ten seconds for its one request and answer; of more than sixteen, the oldest is closed.

    Raises:
        OSError: the address cannot be had.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kind = type("_Server", (_Server,), {"address_family": family})
    server: WSGIServer = make_server(str(address[0]), port, application, kind, _Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Logs nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        self._begun: dict[socket.socket, float] = {}
        """When the connections came that are open, the oldest first."""
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begins a thread for a connection."""
        with self._lock:
            self._begun[request] = time.monotonic()
            if len(self._begun) > _MOST_CONNECTIONS:
                self._end(next(iter(self._begun)))
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Ends what takes too long; `serve_forever` calls this twice a second."""
        with self._lock:
            for request in [one for one, begun in self._begun.items() if begun < time.monotonic() - _MOST_SECONDS]:
                self._end(request)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection whose thread is done."""
        with self._lock:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tells of a fault; that a connection broke, or was ended here, is none."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _end(self, request: socket.socket) -> None:
        """Makes the thread of a connection see its end."""
        del self._begun[request]
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

"""The port of the server, which can be closed while the server is not ready.

gRPC cannot close its port alone, and cannot open it again. So the port is closed by shutting down its listening socket:
gRPC's core then accepts no more connections, and continues to serve the ones that it has. To open it again, another
server with the same services takes the port.
"""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import grpc.aio

from doherty_engine import EngineSetupError
from doherty_service.security import Certificates
from doherty_service.settings import Settings
from doherty_service.telemetry import log_event, name_instance
from doherty_service.transport._poller import calm_poller
from doherty_service.transport._port_watch import TransportLostError, reserve
from doherty_service.transport._server import bind, check_plaintext

_DESCRIPTORS = "/proc/self/fd"
_MAX_RETIRED = 8
"""How many earlier servers may still have connections. A restart of the engine retires a server."""


class Port:
    """Accepts connections always or, with `listen_when_ready`, while the server is ready."""

    def __init__(
        self, new_server: Callable[[], grpc.aio.Server], settings: Settings, certificates: Certificates | None
    ) -> None:
        """Takes the port.

        Raises:
            EngineSetupError: The address cannot be bound, or it would offer plaintext to other machines without
                --insecure, or this system cannot close a port.
        """
        self._new_server = new_server
        self._settings = settings
        self._certificates = certificates
        self._servers: list[grpc.aio.Server] = []
        """The current one is the last; the earlier ones have only connections that were accepted before."""
        self._reserved: list[socket.socket] = []
        self.is_open = False
        """Whether connections are accepted."""
        self._is_withdrawn = False
        if settings.listen_when_ready:
            if sys.platform != "linux":
                raise EngineSetupError("--listen-when-ready works only on Linux.")
            check_plaintext(settings, certificates)
            self.address, self._reserved = reserve(settings.listen)
        else:
            self._servers.append(new_server())
            self.address = bind(self._servers[0], settings, certificates)
        name_instance(int(self.address.rpartition(":")[2]))

    async def start(self) -> None:
        """Accepts connections, unless that has to wait until the server is ready."""
        if not self._settings.listen_when_ready:
            await self._start(self._servers[0])

    async def set_ready(self, *, ready: bool) -> None:
        """Follows the state of the server.

        Raises:
            EngineSetupError: Another process has taken the port.
            TransportLostError: The same, after the server was ready before.
        """
        if not self._settings.listen_when_ready or self._is_withdrawn:
            return
        if ready and not self.is_open:
            await self._open()
        elif not ready:
            self._close()

    def withdraw(self) -> None:
        """Accepts no more connections with `listen_when_ready`, because the server drains."""
        if self._settings.listen_when_ready:
            self._is_withdrawn = True
            self._close()

    async def stop(self, grace: float) -> None:
        """Ends all servers; running calls may take `grace` seconds."""
        for server in self._servers:
            await server.stop(grace)

    async def _open(self) -> None:
        server = self._new_server()
        try:
            bind(server, self._settings.model_copy(update={"listen": self.address}), self._certificates)
        except EngineSetupError as error:
            if self._servers:
                raise TransportLostError(str(error)) from error
            raise
        self._servers.append(server)
        await self._start(server)
        if len(self._servers) > 1 + _MAX_RETIRED:
            await self._servers.pop(0).stop(None)

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
            _shut_down_listeners(int(self.address.rpartition(":")[2]))
            log_event("port_closed", address=self.address)

    async def _start(self, server: grpc.aio.Server) -> None:
        await server.start()
        calm_poller()
        self.is_open = True
        log_event("listening", address=self.address, engine=self._settings.engine)


def _shut_down_listeners(port: int) -> None:
    """Shuts down the sockets of this process that listen on a port."""
    for name in os.listdir(_DESCRIPTORS):  # noqa: PTH208 - as in _connections.py
        with suppress(OSError):  # closed in the meantime, or no socket
            borrowed = socket.SocketType(socket.AF_INET6, socket.SOCK_STREAM, 0, int(name))
            try:
                is_listening = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if is_listening and borrowed.getsockname()[1] == port:
                    borrowed.shutdown(socket.SHUT_RD)
            finally:
                borrowed.detach()

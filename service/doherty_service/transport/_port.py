"""The port of the server, which can be closed while the server is not ready.

A server of gRPC cannot open its port again. So another server with the same services takes the port then, and the
earlier one serves the connections that it has.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from doherty_engine import EngineSetupError
from doherty_service.security import Certificates
from doherty_service.settings import Settings
from doherty_service.telemetry import log_event, name_instance
from doherty_service.transport._port_watch import TransportLostError, reserve
from doherty_service.transport._rpc_server import RpcServer
from doherty_service.transport._server import bind, check_plaintext

if TYPE_CHECKING:
    import socket

_MAX_RETIRED = 8
"""How many earlier servers may still have connections. A restart of the engine retires a server."""


class Port:
    """Accepts connections always or, with `listen_when_ready`, while the server is ready."""

    def __init__(
        self, new_server: Callable[[], RpcServer], settings: Settings, certificates: Certificates | None
    ) -> None:
        """Takes the port.

        Raises:
            EngineSetupError: The address cannot be bound, or it would offer plaintext to other machines without
                --insecure, or this system cannot close a port.
        """
        self._new_server = new_server
        self._settings = settings
        self._certificates = certificates
        self._servers: list[RpcServer] = []
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

    def retire(self) -> None:
        """Asks all callers to connect elsewhere, if the transport can."""
        for server in self._servers:
            server.retire()

    async def replies_sent(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns at the timeout, without an error
        """Waits until the calls that are open now have ended, at most for `timeout` seconds."""
        await asyncio.gather(*(server.replies_sent(timeout) for server in self._servers))

    def count_connections(self) -> int:
        """Returns the number of open connections. Thread-safe."""
        return self._servers[-1].count_connections() if self._servers else 0

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
            await self._servers.pop(0).stop(0)

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._servers[-1].stop_listening()
            log_event("port_closed", address=self.address)

    async def _start(self, server: RpcServer) -> None:
        await server.start()
        if self._is_withdrawn:  # the server began to drain in the meantime
            server.stop_listening()
            return
        self.is_open = True
        log_event("listening", address=self.address, engine=self._settings.engine)

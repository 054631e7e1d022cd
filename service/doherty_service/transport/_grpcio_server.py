"""The transport grpcio: gRPC's core, driven by grpc.aio."""

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import grpc.aio

from doherty_service.security import Certificates
from doherty_service.settings import Settings
from doherty_service.transport._connection_count import count_connections
from doherty_service.transport._grpc_options import grpc_options
from doherty_service.transport._poller import calm_poller

_DESCRIPTORS = "/proc/self/fd"

_RPC_TASK = "rpc_task"
"""The name of grpc.aio's task for each RPC. It ends when core has sent the status and closed the call."""


class GrpcioServer:
    """A server of grpc.aio with one interceptor."""

    def __init__(self, interceptor: grpc.aio.ServerInterceptor, settings: Settings) -> None:
        self._server: Any = grpc.aio.server(interceptors=[interceptor], options=grpc_options(settings))
        self._port = 0

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Adds services."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds the methods of a service."""
        self._server.add_registered_method_handlers(service, handlers)

    def listen(self, address: str, certificates: Certificates | None) -> int:
        """Binds HOST:PORT, and returns the actual port.

        Raises:
            RuntimeError: The address cannot be bound.
        """
        if certificates is None:
            self._port = int(self._server.add_insecure_port(address))
        else:
            self._port = int(self._server.add_secure_port(address, certificates.credentials()))
        return self._port

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()
        calm_poller()

    def stop_listening(self) -> None:
        """Shuts down the listening socket, because gRPC cannot close its port alone."""
        _shut_down_listeners(self._port)

    def retire(self) -> None:
        """Does nothing: grpc.aio sends a GOAWAY only when its server stops."""

    @staticmethod
    async def replies_sent(timeout: float) -> None:  # noqa: ASYNC109 - it returns at the timeout, without an error
        """Waits until the calls that are open now have ended, at most for `timeout` seconds."""
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == _RPC_TASK]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def stop(self, grace: float) -> None:
        """Stops serving; calls may take up to `grace` seconds to finish."""
        await self._server.stop(grace)

    @staticmethod
    def count_connections() -> int:
        """Returns the number of open connections."""
        return count_connections()


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

"""Watches the server's own port: a server whose port is closed must be restarted."""

import asyncio
import socket
from collections.abc import Callable

from doherty_engine import EngineSetupError
from doherty_service.process import Resolved, bind_all, bind_socket, resolve

_CHECK_SECONDS = 0.4
_CLOSED_CHECKS = 2
"""How many checks in a row must find the port closed."""


class TransportLostError(Exception):
    """The port is closed. The message is a sentence for the log."""


async def watch_port(address: str, is_open: Callable[[], bool]) -> None:
    """While `is_open()`, checks that something listens on `address` (HOST:PORT). Runs until it is cancelled.

    grpcio closes its port when its accept loop fails, without reporting it. We check by trying to bind the port: a
    connection would count against the limit of connections and leave a line in core's log.

    Raises:
        TransportLostError: Nothing has listened for about a second.
    """
    host, _, port = address.rpartition(":")
    addresses = resolve(host.strip("[]"), int(port))  # only once, because a DNS query would block the event loop
    closed = 0
    while closed < _CLOSED_CHECKS:
        await asyncio.sleep(_CHECK_SECONDS)
        closed = closed + 1 if is_open() and not _is_taken(addresses) else 0
    raise TransportLostError(f"gRPC does not listen on {address} any more; the process must be started again.")


def reserve(address: str) -> tuple[str, list[socket.socket]]:
    """Binds HOST:PORT without listening, so that the system does not assign the port to another program.

    Returns:
        The address with the actual port, and the sockets, which have to be kept.

    Raises:
        EngineSetupError: The address cannot be bound.
    """
    try:
        reserved, port = bind_all(address)
    except OSError as error:
        raise EngineSetupError(f"Cannot listen on {address}: {error.strerror}.") from error
    return f"{address.rpartition(':')[0]}:{port}", reserved


def try_to_bind(host: str, port: int) -> None:
    """Tries to bind an address, because core writes the reason of a failure only to its own log.

    Raises:
        OSError: The address cannot be bound.
    """
    for resolved in resolve(host, port):
        bind_socket(resolved).close()


def _is_taken(addresses: list[Resolved]) -> bool:
    """Whether something listens on one of the addresses."""
    try:
        for resolved in addresses:
            bind_socket(resolved).close()
    except OSError:
        return True
    return False

"""Watches the server's own port: a server whose port is closed must be restarted."""

import asyncio
import socket
from typing import Any

_CHECK_SECONDS = 0.4
_CLOSED_CHECKS = 2
"""How many checks in a row must find the port closed."""


class TransportLostError(Exception):
    """The port is closed. The message is a sentence for the log."""


async def watch_port(address: str) -> None:
    """Checks that something listens on `address` (HOST:PORT). Runs until it is cancelled.

    grpcio closes its port when its accept loop fails, without reporting it. We check by trying to bind the port: a
    connection would count against the limit of connections and leave a line in core's log.

    Raises:
        TransportLostError: Nothing has listened for about a second.
    """
    host, _, port = address.rpartition(":")
    addresses = _resolve(host.strip("[]"), int(port))  # only once, because a DNS query would block the event loop
    closed = 0
    while closed < _CLOSED_CHECKS:
        await asyncio.sleep(_CHECK_SECONDS)
        closed = 0 if _is_taken(addresses) else closed + 1
    raise TransportLostError(f"gRPC does not listen on {address} any more; the process must be started again.")


def try_to_bind(host: str, port: int) -> None:
    """Tries to bind an address, because core writes the reason of a failure only to its own log.

    Raises:
        OSError: The address cannot be bound.
    """
    for address in _resolve(host, port):
        _bind(address)


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, Any]


def _resolve(host: str, port: int) -> list[_Address]:
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in infos]


def _is_taken(addresses: list[_Address]) -> bool:
    """Whether something listens on one of the addresses."""
    try:
        for address in addresses:
            _bind(address)
    except OSError:
        return True
    return False


def _bind(resolved: _Address) -> None:
    family, kind, protocol, address = resolved
    with socket.socket(family, kind, protocol) as probe:
        # With this option, only a listening socket prevents the bind, not connections that were accepted before.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)

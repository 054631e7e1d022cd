"""Watches the transport as the supervisor watches the engine: a server whose port is closed is of no use."""

import asyncio
import socket
from typing import Any

_LOOK_SECONDS = 0.4
_MOST_CLOSED = 2
"""How many looks in a row must find the port closed."""


class TransportLostError(Exception):
    """Nothing accepts connections any more; the message is one sentence for the log."""


async def watch_port(address: str) -> None:
    """Runs until it is cancelled, as long as something listens on `address` (HOST:PORT).

    grpcio closes its port when its accept loop fails, and tells nobody. Only an attempt to bind the port finds that out
    without a connection, which would count against the limit of connections and leave a line in core's log.

    Raises:
        TransportLostError: nothing has listened for about a second.
    """
    host, _, port = address.rpartition(":")
    addresses = _resolve(host.strip("[]"), int(port))  # once: asking DNS would block the event loop
    closed = 0
    while closed < _MOST_CLOSED:
        await asyncio.sleep(_LOOK_SECONDS)
        closed = 0 if _is_taken(addresses) else closed + 1
    raise TransportLostError(f"gRPC does not listen on {address} any more; the process must be started again.")


def try_to_bind(host: str, port: int) -> None:
    """Finds out whether an address can be had, and why not: core says it only to its own log.

    Raises:
        OSError: it cannot.
    """
    for address in _resolve(host, port):
        _bind(address)


_Address = tuple[socket.AddressFamily, socket.SocketKind, int, Any]


def _resolve(host: str, port: int) -> list[_Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in found]


def _is_taken(addresses: list[_Address]) -> bool:
    """Whether something listens there."""
    try:
        for address in addresses:
            _bind(address)
    except OSError:
        return True
    return False


def _bind(found: _Address) -> None:
    family, kind, protocol, address = found
    with socket.socket(family, kind, protocol) as probe:
        # With this option, only a socket that listens is in the way, not connections that were accepted before.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)

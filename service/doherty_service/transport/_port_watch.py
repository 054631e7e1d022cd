"""Watches the server's own port: a server whose port is closed must be restarted."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from doherty_engine import EngineSetupError

_CHECK_SECONDS = 0.4
_CLOSED_CHECKS = 2
"""How many checks in a row must find the port closed."""


class TransportLostError(Exception):
    """The port is closed. The message is a sentence for the log."""


async def watch_port(address: str, is_open: Callable[[], bool]) -> None:
    """Checks that something listens on `address` (HOST:PORT) while the port is open. Runs until it is cancelled.

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
        closed = closed + 1 if is_open() and not _is_taken(addresses) else 0
    raise TransportLostError(f"gRPC does not listen on {address} any more; the process must be started again.")


def reserve(address: str) -> tuple[str, list[socket.socket]]:
    """Binds HOST:PORT without listening, so that only a process that wants exactly this port gets it.

    Returns:
        The address with the actual port, and the sockets, which have to be kept.

    Raises:
        EngineSetupError: The address cannot be bound.
    """
    host, _, text = address.rpartition(":")
    port, reserved = int(text), []
    try:
        for family, kind, protocol, resolved in _resolve(host.strip("[]"), port):
            sock = socket.socket(family, kind, protocol)
            reserved.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((resolved[0], port, *resolved[2:]))
            port = sock.getsockname()[1]
    except OSError as error:
        for sock in reserved:
            sock.close()
        raise EngineSetupError(f"Cannot listen on {address}: {error.strerror}.") from error
    return f"{host}:{port}", reserved


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

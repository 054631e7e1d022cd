"""Binds sockets to the addresses of a host."""

import socket
from typing import Any

Resolved = tuple[socket.AddressFamily, socket.SocketKind, int, Any]
"""The family, type, protocol and address of a socket."""


_ANY, _ANY_WITH_IPV6 = "0.0.0.0", "::"  # noqa: S104 - what users may choose


def resolve(host: str, port: int) -> list[Resolved]:
    """Returns the addresses of a host to bind. As in gRPC, 0.0.0.0 includes IPv6, if the system has it.

    Raises:
        OSError: It has none.
    """
    if host == _ANY and socket.has_dualstack_ipv6():
        host = _ANY_WITH_IPV6
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, address) for family, kind, protocol, _, address in infos]


def bind_socket(resolved: Resolved) -> socket.socket:
    """Returns a socket that is bound, and does not listen yet.

    Raises:
        OSError: The address cannot be bound.
    """
    family, kind, protocol, address = resolved
    bound = socket.socket(family, kind, protocol)
    try:
        # With this option, only a listening socket prevents the bind, not connections that were accepted before.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # [::] means all addresses, also those of IPv4
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def bind_all(address: str) -> tuple[list[socket.socket], int]:
    """Binds all addresses of HOST:PORT. Returns the sockets and the actual port, which is the same for all.

    Raises:
        OSError: One of them cannot be bound.
    """
    host, _, text = address.rpartition(":")
    port = int(text)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, resolved in resolve(host.strip("[]"), port):
            bound.append(bind_socket((family, kind, protocol, (resolved[0], port, *resolved[2:]))))
            port = bound[-1].getsockname()[1]
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound, port

"""The other ends of connections."""

import ipaddress
import socket
import sys
from typing import Any

_UNACKNOWLEDGED_MS = 10_000


def detect_loss(connection: socket.socket) -> None:
    """Has a connection fail if TCP has not acknowledged sent data for 10 seconds (Linux only)."""
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


def peer_name(address: Any) -> str:
    """Returns gRPC's name of a peer, for example "ipv4:127.0.0.1:50000" or "ipv6:%5B::1%5D:50000"."""
    if not address:
        return ""  # it has left already
    host, port = address[:2]
    ip = ipaddress.ip_address(host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else ip
    return f"ipv6:%5B{host}%5D:{port}" if mapped is None else f"ipv4:{mapped}:{port}"

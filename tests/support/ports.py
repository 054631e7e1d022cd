"""Ports for programs that bind them later."""

import random
import socket

_LOWEST, _HIGHEST = 10_000, 32_767
"""Systems choose the ports of clients, and of servers that bind port 0, above this range: Linux from 32768 on, macOS
and Windows from 49152 on."""


def free_port() -> int:
    """Returns a port that is free on all loopback addresses of IPv4, and that no system chooses by itself.

    So it is still free when a program binds it, perhaps seconds later. Otherwise the many clients and servers of other
    tests would take it now and then.
    """
    while True:
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - any port will do
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port


def free_target() -> str:
    """Returns an address of the loopback interface with a free port."""
    return f"127.0.0.1:{free_port()}"

"""Ports for programs that bind them later."""

import os
import random
import socket
from collections import deque

_LOWEST, _HIGHEST = 10_000, 32_767
"""Systems choose the ports of clients, and of servers that bind port 0, above this range: Linux from 32768 on, macOS
and Windows from 49152 on."""

_MAX_HELD = 16

_held: deque[int] = deque()
"""Sockets, as file descriptors, that are bound to the ports which were returned last. They do not listen. So tests that
run at the same time get other ports, while a server that reuses addresses, as nearly all do, can bind the port."""


def free_port() -> int:
    """Returns a port that is free on all IPv4 addresses of this machine, and that no system chooses on its own.

    So it is still free when a program binds it, perhaps seconds later, or binds it again after a restart. Otherwise the
    many clients and servers of other tests would take it now and then.
    """
    while True:
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - any port will do
        held = socket.socket()
        try:
            held.bind(("", port))
        except OSError:
            held.close()
            continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _held.append(held.detach())
        if len(_held) > _MAX_HELD:
            os.close(_held.popleft())
        return port


def free_target() -> str:
    """Returns an address of the loopback interface with a free port."""
    return f"127.0.0.1:{free_port()}"

"""Finds out whether servers speak TLS."""

import threading
from contextlib import suppress
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Final

from doherty._core._errors import ClientClosedError
from doherty._core._obstacle import TlsUse

if TYPE_CHECKING:
    import socket

    from doherty._core._unreachable import Address

_END_TIMEOUT: Final = 5.0
"""How many seconds `stop` waits for a probe."""


class Probes:
    """Asks servers whether they expect TLS. Threads that ask the same server at the same time share the answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Address, _Probe] = {}
        self._stopped = False

    def ask(self, address: "Address", seconds: float) -> TlsUse | ClientClosedError | None:
        """Asks a server, or waits for a thread that does.

        Returns None if the server gave no answer in time, and an error once `stop` was called.
        """
        from doherty._probe import new_socket, probe  # noqa: PLC0415 - few calls need it, and it loads ssl

        with self._lock:
            if self._stopped:
                return ClientClosedError("The client was closed.")
            shared = self._running.get(address)
            try:
                asking = shared or self._running.setdefault(address, _Probe(new_socket(address)))
            except OSError:  # the process has no descriptor left
                return None
        if shared is not None:
            shared.ended.wait(seconds)
            return shared.answer
        try:
            asking.answer = probe(asking.connection, address, seconds)
        finally:
            with self._lock:
                del self._running[address]
            asking.ended.set()
        return asking.answer

    def stop(self) -> None:
        """Ends all probes."""
        with self._lock:
            self._stopped = True
            running = tuple(self._running.values())
        for asking in running:
            with suppress(OSError):  # it is not connected, or closed already
                asking.connection.shutdown(SHUT_RDWR)
            asking.ended.wait(_END_TIMEOUT)


class _Probe:
    def __init__(self, connection: "socket.socket") -> None:
        self.connection = connection
        self.answer: TlsUse | None = None
        self.ended = threading.Event()

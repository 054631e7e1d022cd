"""Accepts connections over TLS."""

import asyncio
import socket
from collections.abc import Callable
from struct import Struct
from typing import Final

from doherty_engine import is_shortage
from doherty_service.rpc import Turns
from doherty_service.security import Certificates
from doherty_service.telemetry import LineLimit, log_error

_BACKLOG = 1024
_MIN_SECONDS = 0.1
"""What is left for a handshake, even if its first bytes came late."""
_RETRY_SECONDS = 0.1
"""The pause after a connection could not be accepted, for example because no file descriptor is left."""

_RECORD: Final = Struct(">B2xH")
"""The header of a TLS record: its kind, its version, and its length in bytes (RFC 8446, section 5.1)."""
_HANDSHAKE = 22
_MAX_RECORD_BYTES = 16 << 10


class TlsListener:
    """Accepts the connections of one socket, and makes their handshakes.

    One handshake per turn of the event loop gets its reply, because the reply to the caller's first message takes most
    of the work. So a handshake does not begin before that message has arrived completely.
    """

    def __init__(
        self, listener: socket.socket, certificates: Certificates, connect: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """`connect` makes the protocol of a connection, which is used once its handshake has succeeded."""
        self._listener = listener
        self._certificates = certificates
        self._connect = connect
        self._handshakes: set[asyncio.Task[None]] = set()
        self._turns = Turns()
        self._lines = LineLimit(burst=1, per_second=1 / 60)
        self._accepting: asyncio.Task[None] | None = None

    @property
    def handshakes(self) -> int:
        """How many handshakes are not complete."""
        return len(self._handshakes)

    def start(self, *, timeout: float, has_room: Callable[[], bool]) -> None:
        """Begins to accept connections while there `has_room`. A handshake may take `timeout` seconds."""
        self._listener.settimeout(0)
        self._listener.listen(_BACKLOG)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(timeout, has_room))
        self._accepting.add_done_callback(self._stopped)

    def close(self) -> None:
        """Accepts no more connections."""
        if self._accepting is None:
            self._listener.close()
        else:
            self._accepting.cancel()

    def abort(self) -> None:
        """Ends the handshakes."""
        for handshake in self._handshakes:
            handshake.cancel()

    def _stopped(self, accepting: asyncio.Task[None]) -> None:
        self._listener.close()
        if not accepting.cancelled() and (error := accepting.exception()) is not None:
            log_error("connection_failed", cause=error)  # and the watch of the port ends the process

    async def _accept(self, timeout: float, has_room: Callable[[], bool]) -> None:  # noqa: ASYNC109 - of handshakes
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listener)
            except (OSError, MemoryError) as error:  # the caller has left, or something is short
                if is_shortage(error) and self._lines.allows():
                    log_error("connection_failed", cause=error)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if has_room():
                handshake = loop.create_task(self._shake_hands(accepted, timeout))
                self._handshakes.add(handshake)
                handshake.add_done_callback(self._handshakes.discard)
            else:
                accepted.close()
            await asyncio.sleep(0)  # others have their turn between two of many connections

    async def _shake_hands(self, accepted: socket.socket, timeout: float) -> None:  # noqa: ASYNC109 - as above
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout
        try:
            async with asyncio.timeout_at(ends_at):
                await _first_message(accepted)
            context = await self._certificates.current_context()
            await self._turns.take()
            seconds = max(ends_at - loop.time(), _MIN_SECONDS)
            await loop.connect_accepted_socket(self._connect, accepted, ssl=context, ssl_handshake_timeout=seconds)
        except OSError:  # what the caller sent is not TLS, it has left, or it was too slow (TimeoutError)
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()
            raise
        except Exception as error:  # noqa: BLE001 - it must not stop the other connections
            accepted.close()
            log_error("connection_failed", cause=error)


async def _first_message(connection: socket.socket) -> None:
    """Waits until the caller has sent its first message completely, has sent something else, or has left."""
    await _arrival(connection, _RECORD.size)
    header = connection.recv(_RECORD.size, socket.MSG_PEEK)
    if len(header) == _RECORD.size:
        kind, length = _RECORD.unpack(header)
        if kind == _HANDSHAKE and length <= _MAX_RECORD_BYTES:
            await _arrival(connection, _RECORD.size + length)


async def _arrival(connection: socket.socket, count: int) -> None:
    """Waits until `count` bytes can be read, or the caller has left. Some systems wait only for the first byte."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    loop.add_reader(connection, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

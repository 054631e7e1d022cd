"""Hands received bytes to connections, as many as one turn of the event loop should handle."""

import asyncio
import time
from collections import deque
from typing import Protocol

from doherty_service.telemetry import log_error

_PIECE_BYTES = 2 << 10

Data = bytes | memoryview


class Receiver(Protocol):
    """What the intake needs from a connection."""

    is_in_line: bool
    """Whether bytes from the caller wait for a turn."""

    @property
    def closed(self) -> float | None:
        """When it was closed."""
        ...

    def receive(self, data: Data, max_requests: int) -> int:
        """Handles what came from the caller, up to `max_requests` requests. Returns how many bytes were handled."""
        ...

    def pause_reading(self) -> None:
        """Leaves what comes in the socket."""
        ...

    def resume_reading(self) -> None:
        """Reads from the socket again."""
        ...

    def abort(self) -> None:
        """Closes the connection at once."""
        ...


class Intake:
    """Bounds what some connections together receive in one turn of the event loop.

    Few bytes may decode to many, or begin many requests. So bytes are handled in pieces. When a turn has no room left,
    the connections wait in a line, and each gets one piece at a time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, max_requests: int, seconds: float) -> None:
        """At most `max_requests` requests begin in a turn, and no piece is begun after `seconds`.

        The handlers of these requests run before the connections in line are served. They take more time than reading
        the requests.
        """
        self._loop = loop
        self._max_requests = max_requests
        self._seconds = seconds
        self._waiting: deque[tuple[Receiver, Data]] = deque()
        self._turn_has_begun = False
        """Whether something was received in the current turn."""
        self._ends_at = 0.0
        """When this turn has no room left."""
        self._requests_left = 0

    def count_request(self) -> None:
        """Records that a request begins."""
        self._requests_left -= 1

    def take(self, connection: Receiver, data: bytes) -> None:
        """Handles received bytes in this turn if there is room, and in later turns otherwise."""
        if not self._turn_has_begun:
            self._begin_turn()
        rest: Data = data
        while rest and not self._waiting and self._has_room():
            rest = self._receive_piece(connection, rest)
        if rest:
            if not self._waiting:
                # Scheduled after the handlers of the requests that began in this turn, so that they run first.
                self._loop.call_soon(self._serve_line)
            connection.pause_reading()
            connection.is_in_line = True
            self._waiting.append((connection, rest))

    def _begin_turn(self) -> None:
        self._turn_has_begun = True
        self._ends_at = time.monotonic() + self._seconds
        self._requests_left = self._max_requests
        self._loop.call_soon(self._end_turn)

    def _has_room(self) -> bool:
        return self._requests_left > 0 and time.monotonic() < self._ends_at

    def _end_turn(self) -> None:
        self._turn_has_begun = False

    def _serve_line(self) -> None:
        """Begins a turn with the connections that wait."""
        self._begin_turn()
        try:
            self._receive_from_line()
        finally:
            if self._waiting:
                self._loop.call_soon(self._serve_line)

    def _receive_from_line(self) -> None:
        while self._waiting and self._has_room():
            connection, data = self._waiting.popleft()
            try:
                rest = self._receive_piece(connection, data)
            except Exception as error:  # noqa: BLE001 - an error of one connection must not stop the others
                log_error("connection_failed", cause=error)
                connection.is_in_line = False
                connection.abort()
                continue
            if rest:
                self._waiting.append((connection, rest))
                continue
            connection.is_in_line = False
            if connection.closed is None:
                connection.resume_reading()

    def _receive_piece(self, connection: Receiver, data: Data) -> Data:
        """Handles the first piece of the data, and returns the rest; if the connection is closed, drops the rest."""
        if connection.closed is not None:
            return b""
        piece = data
        if len(data) > _PIECE_BYTES:
            data = memoryview(data)  # a slice of it is not a copy
            piece = data[:_PIECE_BYTES]
        handled = connection.receive(piece, self._requests_left)
        return b"" if handled == len(data) or connection.closed is not None else data[handled:]

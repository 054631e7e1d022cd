"""The sending half of a connection, which its streams use."""

import asyncio
import sys
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

from doherty_service.http2._frames import FrameTracker
from doherty_service.http2._metadata import Fields
from doherty_service.http2._nghttp2 import Session, SessionError

MOST_QUEUED: Final = 64 << 10
"""A write waits while more bytes of its call than this wait to be sent."""


class Link:
    """What a stream uses of its connection. Streams are named by their numbers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Session) -> None:
        self.loop = loop
        self.session = session
        self.peer = ""
        """The caller's address, in gRPC's form."""
        self.blocked: set[int] = set()
        """Streams that wait until there is room for more of their data."""
        self.answered: dict[int, float] = {}
        """Streams whose status was handed to the session before their caller had ended its side, and when that was."""
        self.postponed: dict[int, int] = {}
        """Streams that will be reset, with the error code."""
        self.frames = FrameTracker()
        self.closed: float | None = None
        """When the socket was closed, on our side."""
        self.is_writable = True
        """Whether the socket takes more."""
        self.is_dirty = False
        """Whether the connection will be flushed in this turn of the event loop."""

    def flush_soon(self) -> None:
        """Sends what there is in this turn of the event loop."""
        if not self.is_dirty:
            self.is_dirty = True
            self.ask_to_flush()

    @abstractmethod
    def abort(self) -> None:
        """Closes the connection without sending what is left."""

    @abstractmethod
    def ask_to_flush(self) -> None:
        """Asks the server to flush this connection at the end of this turn."""

    def is_behind(self, number: int) -> bool:
        """Whether a stream should not write more now."""
        if self.closed is not None:
            return False
        return not self.is_writable or self.session.queued_body_size(number) > MOST_QUEUED

    def try_to_send(self, number: int, data: bytes) -> bool:
        """Sends data of an answer whose headers are sent, unless they might have to wait for the caller."""
        session = self.session
        if self.closed is not None or not self.is_writable:
            return False
        if session.queued_body_size(number) + len(data) > MOST_QUEUED:
            return False
        try:
            session.send_data(number, data)
        except SessionError:
            return False  # as in `_do`
        self.flush_soon()
        return True

    def holds(self, number: int) -> bool:
        """Whether a part of a stream's data will not leave with the next flush."""
        if self.closed is not None:
            return False
        session = self.session
        queued = session.queued_body_size(number)
        if queued and not self.is_writable:
            return True
        # What other streams have queued may leave first.
        return session.queued_body_size() > session.remote_window_size or self._window(number) <= queued

    def keeps_trailers(self, number: int) -> bool:
        """Whether the end of an answer that has begun cannot leave, because the caller has closed its windows."""
        return self._window(number) <= 0

    def _window(self, number: int) -> int:
        """How many bytes of a stream the caller takes now. libnghttp2 sends not even trailers if it takes none."""
        try:
            return min(self.session.remote_window_size, self.session.stream_remote_window_size(number))
        except SessionError:
            return sys.maxsize  # the stream is closed, and the event that says so follows

    def send_headers(self, number: int, fields: Fields, *, is_last: bool = False) -> None:
        """Sends the first headers of an answer."""
        self._do(self.session.send_response, number, fields, end_stream=is_last)

    def send_data(self, number: int, data: bytes) -> None:
        """Sends data of an answer."""
        self._do(self.session.send_data, number, data)

    def send_trailers(self, number: int, fields: Fields) -> None:
        """Sends the end of an answer."""
        self._do(self.session.send_trailers, number, fields)

    def reset(self, number: int, code: int) -> None:
        """Ends a stream without a status, once no DATA frame of it is received in part."""
        if self.frames.is_within_data(number):
            self.postponed[number] = code
        else:
            self._do(self.session.reset_stream, number, code)

    def consume(self, number: int, count: int) -> None:
        """Lets the caller send `count` more bytes."""
        self._do(self.session.acknowledge_received_data, count, number)

    def widen(self, number: int, count: int) -> None:
        """Lets the caller send a long message without waiting for us after each part of it."""
        self._do(self.session.set_local_window_size, count, stream_id=number)

    def _do(self, action: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Lets the session do something for a stream, unless the stream or the session has just ended."""
        if self.closed is not None:
            return
        try:
            action(*arguments, **options)
        except SessionError:
            return  # the event that says so follows
        except MemoryError:
            self.abort()
            return
        self.flush_soon()

"""The streams of a connection, and what they use of it."""

import asyncio
import sys
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

import grpc

from doherty_service.http2._frames import FrameTracker
from doherty_service.http2._metadata import Fields
from doherty_service.http2._nghttp2 import CANCEL, NO_ERROR, Session, SessionError
from doherty_service.telemetry import awake

MAX_QUEUED: Final = 64 << 10
"""A write waits while more bytes of its call than this wait to be sent."""


class Link:
    """The streams of a connection, and what they use of it. Streams are named by their numbers."""

    def __init__(self, loop: asyncio.AbstractEventLoop, session: Session) -> None:
        self.loop = loop
        self.session = session
        self.peer = ""
        """The caller's address, in gRPC's form."""
        self.is_accepted = False
        """Whether a call on it has passed authentication."""
        self.streams: dict[int, Any] = {}
        """Instances of `Stream`, which uses this class."""
        self.used = 0.0
        """When the last stream ended or began."""
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
        """Asks the server to flush this connection in this turn of the event loop."""

    def is_behind(self, number: int) -> bool:
        """Whether a stream should not write more now."""
        if self.closed is not None:
            return False
        return not self.is_writable or self.session.queued_body_size(number) > MAX_QUEUED

    def try_to_send(self, number: int, data: bytes) -> bool:
        """Sends data of an answer whose headers are sent, unless they might have to wait for the caller."""
        session = self.session
        if self.closed is not None or not self.is_writable:
            return False
        if session.queued_body_size(number) + len(data) > MAX_QUEUED:
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

    def reset_postponed(self) -> None:
        """Ends the streams whose DATA frame has been received whole meanwhile."""
        for number, code in tuple(self.postponed.items()):
            if not self.frames.is_within_data(number):
                del self.postponed[number]
                self.reset(number, code)

    def consume(self, number: int, count: int) -> None:
        """Lets the caller send `count` more bytes."""
        self._do(self.session.acknowledge_received_data, count, number)

    def widen(self, number: int, count: int) -> None:
        """Lets the caller send a long message without waiting for us after each part of it."""
        self._do(self.session.set_local_window_size, count, stream_id=number)

    def reset_answered(self) -> None:
        """Resets streams whose answer is sent while their caller may still send.

        NO_ERROR asks the caller to stop sending without losing the answer (RFC 9113, section 8.1).
        """
        for number in tuple(self.answered):
            stream = self.streams[number]
            if stream.incoming.is_complete:
                del self.answered[number]
            elif not self.session.queued_body_size(number) and not (stream.has_begun and self.keeps_trailers(number)):
                del self.answered[number]
                self.reset(number, NO_ERROR)

    def reset_unread(self, seconds: float) -> None:
        """Resets streams whose caller neither ends its side nor reads the answer, after this time."""
        for number, since in tuple(self.answered.items()):
            if awake.seconds_since(since) > seconds:
                del self.answered[number]
                self.reset(number, CANCEL)

    def make_room(self) -> None:
        """Continues the streams that wait until there is room for more of their data."""
        for number in tuple(self.blocked):
            self.streams[number].make_room(self.session.queued_body_size(number))

    def close_stream(self, number: int, *, is_sent: bool, code: grpc.StatusCode | None = None) -> None:
        """Removes a stream that is closed; the arguments are described at `Stream.close`."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            self.used = time.monotonic()
            self.answered.pop(number, None)
            self.postponed.pop(number, None)
            self.blocked.discard(number)
            stream.close(is_sent=is_sent, code=code)

    def close_streams(self, code: grpc.StatusCode | None = None) -> None:
        """Removes all streams, because the connection is closed."""
        for number in tuple(self.streams):
            self.close_stream(number, is_sent=False, code=code)

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
        if not self.is_dirty:
            self.flush_soon()

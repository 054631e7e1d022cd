"""One connection: the bytes of a socket, the HTTP/2 session, and its streams."""

import asyncio
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from doherty_service.http2._link import Link
from doherty_service.http2._metadata import METADATA_BYTES, NotGrpcError, RefusedCallError, read_head
from doherty_service.http2._nghttp2 import (
    CANCEL,
    NO_ERROR,
    DataReceived,
    FloodError,
    PingAcknowledged,
    RequestReceived,
    RequestTrailersReceived,
    SessionEnded,
    SessionError,
    SettingsAcknowledged,
    StreamClosed,
    new_session,
)
from doherty_service.http2._peers import peer_name
from doherty_service.http2._stream import Stream
from doherty_service.rpc import Method
from doherty_service.telemetry import awake

_UNACKNOWLEDGED_MS = 10_000
"""A connection is lost if TCP has not acknowledged sent data for this long (Linux only)."""

_PIECE_BYTES = 2 << 10
_TURN_SECONDS = 0.005
"""Received bytes are handled in pieces, for this long in one turn of the event loop: few bytes may decode to many."""

_JITTER = 0.1
"""Ages differ, so that clients that connected together do not reconnect together."""

_LEAVING = b"leaving."
"""The payload of the ping that follows the first GOAWAY: at its reply, the caller has seen that GOAWAY."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may use."""

    message_bytes: int
    """Bytes of one message."""
    streams: int
    """Concurrent calls on one connection."""
    connections: int
    """Connections that are accepted."""


class Host(Protocol):
    """The server that a connection belongs to."""

    loop: asyncio.AbstractEventLoop
    limits: Limits

    def admit(self, connection: "Connection") -> bool:
        """Counts a new connection; returns False if there are too many."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Records that a connection was closed."""
        ...

    def flush_soon(self, connection: "Connection") -> None:
        """Flushes a connection at the end of this turn of the event loop."""
        ...

    def find(self, path: bytes) -> Method:
        """Returns the method of a path."""
        ...


_GOAWAY = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0b"
"""A GOAWAY frame with ENHANCE_YOUR_CALM, which leaves open what calls were processed."""


class Connection(Link, asyncio.Protocol):
    """One connection. All its methods run on the event loop."""

    def __init__(self, server: Host) -> None:
        super().__init__(server.loop, new_session(server.limits.streams, METADATA_BYTES))
        self.streams: dict[int, Stream] = {}
        self.opened = self.heard = self.used = time.monotonic()
        """When it was opened, when the last whole frame came, and when its last stream ended or began."""
        self.lifespan = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - it spreads load
        """The share of the maximum age that it reaches."""
        self.pinged: float | None = None
        """When the unanswered ping was sent."""
        self.greeted = False
        """Whether the caller has sent its SETTINGS and acknowledged ours."""
        self.retired: float | None = None
        """When the first GOAWAY was sent."""
        self._is_final = False
        """Whether the second GOAWAY was sent."""
        self._server = server
        self._transport: Any = None

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """Begins the session, unless there are too many connections."""
        self._transport = transport
        self.peer = peer_name(transport.get_extra_info("peername"))
        if not self._server.admit(self):
            self.closed = time.monotonic()
            transport.abort()
            return
        if sys.platform == "linux":
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS
            )
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Ends all streams."""
        self.closed = self.closed or time.monotonic()
        self._server.forget(self)
        self._close_streams()

    def pause_writing(self) -> None:
        """Stops sending: the socket takes no more."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """Continues to send."""
        self.is_writable = True
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Handles what came from the caller, and lets others have their turn in between."""
        if self.closed is not None:
            return
        if len(data) <= _PIECE_BYTES:
            self._receive(data)
        else:
            self._receive_pieces(memoryview(data))

    # What the server and its watch call.

    def ask_to_flush(self) -> None:
        """Asks the server to flush this connection at the end of this turn."""
        self._server.flush_soon(self)

    def flush(self) -> None:
        """Sends what there is, as far as the caller and the socket take it."""
        self.is_dirty = False
        if self.closed is not None or not self.is_writable:
            return
        session = self.session
        try:
            data = session.data_to_send()
        except (SessionError, MemoryError):
            self.close()
            return
        if data:
            self._transport.write(data)
        if events := session.events():
            self._handle_events(events)
        if self.blocked and self.closed is None:
            self._make_room()
        if self.answered and self.closed is None:
            self._reset_answered()

    @property
    def has_unsent(self) -> bool:
        """Whether a part of what was written has not reached the socket."""
        return self.closed is None and (self.is_dirty or self._transport.get_write_buffer_size() > 0)

    def ping(self) -> None:
        """Asks the caller for a sign of life."""
        self.pinged = time.monotonic()
        self._do(self.session.ping)

    def retire(self) -> None:
        """Asks the caller to make no more calls on this connection. Those that it has made may finish.

        A second GOAWAY follows once the caller has seen the first one, so that no call is lost in between.
        """
        if self.retired is None and self.closed is None:
            self.retired = time.monotonic()
            self._do(self.session.send_shutdown_notice)
            self._do(self.session.ping, _LEAVING)

    def finish(self) -> None:
        """Sends the second GOAWAY. The connection is closed once its streams have ended."""
        if not self._is_final and self.closed is None:
            self._is_final = True
            self._do(self.session.send_goaway, NO_ERROR)

    def close(self) -> None:
        """Closes the connection."""
        if self.closed is None:
            self.closed = time.monotonic()
            self._transport.close()
            self._close_streams()

    def abort(self) -> None:
        """Closes the connection without sending what is left."""
        self.closed = self.closed or time.monotonic()
        self._transport.abort()

    def _receive(self, data: bytes | memoryview) -> None:
        self.frames.follow(data)
        try:
            self.session.receive_data(data)
        except (SessionError, MemoryError) as error:
            if isinstance(error, FloodError):
                self._transport.write(_GOAWAY)  # the session cannot do it any more
            self.close()
            return
        self._handle_events(self.session.events())
        if self.postponed:
            self._reset_postponed()
        self.flush_soon()

    def _receive_pieces(self, data: memoryview, *, is_paused: bool = False) -> None:
        ends_at = time.monotonic() + _TURN_SECONDS
        while data and self.closed is None:
            if time.monotonic() > ends_at:
                if not is_paused:
                    self._transport.pause_reading()
                self.loop.call_soon(partial(self._receive_pieces, data, is_paused=True))
                return
            self._receive(data[:_PIECE_BYTES])
            data = data[_PIECE_BYTES:]
        if is_paused and self.closed is None:
            self._transport.resume_reading()

    def _reset_postponed(self) -> None:
        for number, code in tuple(self.postponed.items()):
            if not self.frames.is_within_data(number):
                del self.postponed[number]
                self.reset(number, code)

    def _handle_events(self, events: list[Any]) -> None:
        if not events:
            return
        self.heard = time.monotonic()
        for event in events:
            handle = _HANDLERS.get(type(event))
            if handle is not None:
                handle(self, event)
        if type(events[-1]) is SessionEnded:
            self._end_session()

    def _on_request(self, event: RequestReceived) -> None:
        self.used = time.monotonic()
        number = event.stream_id
        stream = self.streams[number] = Stream(self, number, self._server.limits.message_bytes)
        stream.incoming.is_complete = event.end_stream
        try:
            head = read_head(event.headers)
        except NotGrpcError as error:
            stream.reject(error)
        except RefusedCallError as error:
            stream.refuse(error)
        else:
            stream.begin(head, self._server.find(head.path))

    def _on_data(self, event: DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self.consume(event.stream_id, len(event.data))
        else:
            stream.receive(event.data, is_last=event.end_stream)

    def _on_request_trailers(self, event: RequestTrailersReceived) -> None:
        if (stream := self.streams.get(event.stream_id)) is not None:
            stream.receive(b"", is_last=True)

    def _on_stream_closed(self, event: StreamClosed) -> None:
        self._close_stream(event.stream_id, is_sent=event.error_code == NO_ERROR)

    def _on_ping_acknowledged(self, event: PingAcknowledged) -> None:
        self.pinged = None
        if event.opaque_data == _LEAVING:
            self.finish()

    def _on_settings_acknowledged(self, _: SettingsAcknowledged) -> None:
        self.greeted = True

    def _close_stream(self, number: int, *, is_sent: bool) -> None:
        stream = self.streams.pop(number, None)
        if stream is not None:
            self.used = time.monotonic()
            self.answered.pop(number, None)
            self.postponed.pop(number, None)
            self.blocked.discard(number)
            stream.close(is_sent=is_sent)

    def _close_streams(self) -> None:
        for number in tuple(self.streams):
            self._close_stream(number, is_sent=False)

    def _end_session(self) -> None:
        """Sends what the session has left, a GOAWAY for example, and closes the connection."""
        if self.is_writable and self.closed is None:
            with suppress(SessionError, MemoryError):  # the connection is closed in any case
                self._transport.write(self.session.data_to_send())
        self.close()

    def _reset_answered(self) -> None:
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

    def _make_room(self) -> None:
        for number in tuple(self.blocked):
            self.streams[number].make_room(self.session.queued_body_size(number))


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    RequestReceived: Connection._on_request,  # noqa: SLF001 - this class's own methods
    DataReceived: Connection._on_data,  # noqa: SLF001
    RequestTrailersReceived: Connection._on_request_trailers,  # noqa: SLF001
    StreamClosed: Connection._on_stream_closed,  # noqa: SLF001
    PingAcknowledged: Connection._on_ping_acknowledged,  # noqa: SLF001
    SettingsAcknowledged: Connection._on_settings_acknowledged,  # noqa: SLF001
}
"""Events without a handler need none: after each batch of events, what has room in the windows is sent."""

"""One connection: the bytes of a socket, the HTTP/2 session, and its streams."""

import asyncio
import random
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from doherty_service.http2._link import Link
from doherty_service.http2._metadata import METADATA_BYTES, NotGrpcError, RefusedCallError, read_head
from doherty_service.http2._nghttp2 import (
    NO_ERROR,
    DataReceived,
    PingAcknowledged,
    RequestReceived,
    RequestTrailersReceived,
    SessionEnded,
    SessionError,
    SettingsReceived,
    StreamClosed,
    new_session,
)
from doherty_service.http2._peers import peer_name
from doherty_service.http2._stream import Stream
from doherty_service.rpc import Method

_UNACKNOWLEDGED_MS = 10_000
"""A connection is lost if TCP has not acknowledged sent data for this long (Linux only)."""

_SLICE_BYTES = 32 << 10
"""The bytes of a connection that are handled in one turn of the event loop: at most some 200 calls."""

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
        """Whether the caller's SETTINGS have come."""
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
        """Handles what came from the caller, and lets others have their turn after each slice of it."""
        if self.closed is not None:
            return
        if len(data) <= _SLICE_BYTES:
            self._receive(data)
        else:
            self._transport.pause_reading()
            self._receive_slices(memoryview(data))

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
        try:
            self.session.receive_data(data)
        except (SessionError, MemoryError):
            self.close()
            return
        self._handle_events(self.session.events())
        self.flush_soon()

    def _receive_slices(self, data: memoryview) -> None:
        if self.closed is not None:
            return
        self._receive(data[:_SLICE_BYTES])
        if len(data) > _SLICE_BYTES:
            self.loop.call_soon(self._receive_slices, data[_SLICE_BYTES:])
        elif self.closed is None:
            self._transport.resume_reading()

    def _handle_events(self, events: list[Any]) -> None:
        if not events:
            return
        self.heard = time.monotonic()
        if type(events[-1]) is SessionEnded:
            self._end_session()
            return
        for event in events:
            handle = _HANDLERS.get(type(event))
            if handle is not None:
                handle(self, event)

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

    def _on_settings(self, _: SettingsReceived) -> None:
        self.greeted = True

    def _close_stream(self, number: int, *, is_sent: bool) -> None:
        stream = self.streams.pop(number, None)
        if stream is not None:
            self.used = time.monotonic()
            self.answered.discard(number)
            self.blocked.discard(number)
            stream.close(is_sent=is_sent)

    def _close_streams(self) -> None:
        for number in tuple(self.streams):
            self._close_stream(number, is_sent=False)

    def _end_session(self) -> None:
        """Sends what the session has left, a GOAWAY for example, and closes the connection."""
        if self.is_writable:
            self._transport.write(self.session.data_to_send())
        self.close()

    def _reset_answered(self) -> None:
        """Resets streams whose answer is sent while their caller may still send.

        NO_ERROR asks the caller to stop sending without losing the answer (RFC 9113, section 8.1).
        """
        session = self.session
        for number in tuple(self.answered):
            if self.streams[number].incoming.is_complete:
                self.answered.discard(number)
            elif not session.queued_body_size(number) and session.stream_remote_window_size(number) > 0:
                self.answered.discard(number)
                self.reset(number, NO_ERROR)

    def _make_room(self) -> None:
        for number in tuple(self.blocked):
            self.streams[number].make_room(self.session.queued_body_size(number))


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    RequestReceived: Connection._on_request,  # noqa: SLF001 - this class's own methods
    DataReceived: Connection._on_data,  # noqa: SLF001
    RequestTrailersReceived: Connection._on_request_trailers,  # noqa: SLF001
    StreamClosed: Connection._on_stream_closed,  # noqa: SLF001
    PingAcknowledged: Connection._on_ping_acknowledged,  # noqa: SLF001
    SettingsReceived: Connection._on_settings,  # noqa: SLF001
}
"""Events without a handler need none: after each batch of events, what has room in the windows is sent."""

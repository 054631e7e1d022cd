"""One connection: the bytes of a socket, the HTTP/2 session, and its streams."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import grpc

from doherty_service.http2._intake import Intake
from doherty_service.http2._limits import Limits
from doherty_service.http2._link import Link
from doherty_service.http2._metadata import METADATA_BYTES, NotGrpcError, read_head
from doherty_service.http2._nghttp2 import (
    FLOOD_GOAWAY,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    DataReceived,
    FloodError,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    RequestTrailersReceived,
    SessionEnded,
    SessionError,
    SettingsAcknowledged,
    StreamClosed,
    new_session,
)
from doherty_service.http2._peers import detect_loss, peer_name
from doherty_service.http2._stream import Stream
from doherty_service.rpc import Method

_JITTER = 0.1
"""Ages differ, so that clients that connected together do not reconnect together."""

_MAX_LATE_REQUESTS = 100
"""A caller that sends more requests than this after its GOAWAY is disconnected."""

_LEAVING = b"leaving."
"""The payload of the ping that follows the first GOAWAY: at its reply, the caller has seen that GOAWAY."""


class Host(Protocol):
    """What a connection needs of its server."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    intake: Intake
    """For connections on which a caller was accepted."""
    unaccepted_intake: Intake
    """For all others."""
    read_buffer: memoryview
    """The buffer into which all connections read: each takes out at once what it has read."""
    unaccepted_read_buffer: memoryview
    """A part of it, for connections on which no caller was accepted."""

    def admit(self, connection: "Connection") -> bool:
        """Counts a new connection; returns False if there are too many."""
        ...

    def forget(self, connection: "Connection") -> None:
        """Records that a connection was closed."""
        ...

    def flush_soon(self, connection: "Connection") -> None:
        """Flushes a connection in this turn of the event loop."""
        ...

    def find(self, path: bytes) -> Method:
        """Returns the method of a path."""
        ...


class Connection(Link, asyncio.BufferedProtocol):
    """One connection. All its methods run on the event loop."""

    streams: dict[int, Stream]

    def __init__(self, server: Host) -> None:
        super().__init__(server.loop, new_session(server.limits.streams, METADATA_BYTES))
        self.opened = self.heard = 0.0
        """When it was opened, and when the last whole frame came."""
        self.lifespan = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - it spreads load
        """The share of the maximum age that it reaches."""
        self.pinged: float | None = None
        """When the unanswered ping was sent."""
        self.is_in_line = False
        """Whether bytes from the caller wait for a turn (see `Intake`)."""
        self.greeted = False
        """Whether the caller has sent its SETTINGS and acknowledged ours."""
        self.retired: float | None = None
        """When the first GOAWAY was sent."""
        self._is_final = False
        """Whether the second GOAWAY was sent."""
        self._is_left = False
        """Whether the caller has sent a GOAWAY."""
        self._late_requests = 0
        """Requests that came after that."""
        self._server = server
        self._intake = server.unaccepted_intake
        self._transport: Any = None

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """Begins the session, unless there are too many connections."""
        self._transport = transport
        self.opened = self.heard = self.used = time.monotonic()  # with TLS, the handshake came before
        self.peer = peer_name(transport.get_extra_info("peername"))
        if not self._server.admit(self):
            self.closed = time.monotonic()
            transport.abort()
            return
        detect_loss(transport.get_extra_info("socket"))
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Ends all streams."""
        self.closed = self.closed or time.monotonic()
        self._server.forget(self)
        self.close_streams()

    def pause_writing(self) -> None:
        """Stops sending: the socket takes no more."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """Continues to send."""
        self.is_writable = True
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Returns where to put what comes from the caller next."""
        return self._server.read_buffer if self.is_accepted else self._server.unaccepted_read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handles what came from the caller, and lets others have their turn in between."""
        data = bytes(self.get_buffer(0)[:nbytes])
        if self.closed is None:
            if self.is_accepted and not self.is_in_line:
                self._intake = self._server.intake
            self._intake.take(self, data)

    # What the server, its intake and its watch call.

    def receive(self, data: bytes | memoryview, max_requests: int) -> int:
        """Handles what came from the caller, up to `max_requests` requests. Returns how many bytes were handled."""
        allowed = self.frames.follow(data, max_requests)
        try:
            self.session.receive_data(data[:allowed])
        except (SessionError, MemoryError) as error:
            self._handle_events(self.session.events())  # of calls that began before, so that they are recorded
            if isinstance(error, FloodError):
                self._end_flood()
            else:
                self.close(grpc.StatusCode.UNAVAILABLE if isinstance(error, MemoryError) else None)
            return allowed
        self._handle_events(self.session.events())
        if self.postponed:
            self.reset_postponed()
        if self.frames.has_forbidden:
            self._do(self.session.terminate_connection, PROTOCOL_ERROR)
            self.flush()
            return len(data)
        self.flush_soon()
        return allowed

    def pause_reading(self) -> None:
        """Leaves what comes in the socket."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads from the socket again."""
        self._transport.resume_reading()

    def ask_to_flush(self) -> None:
        """Asks the server to flush this connection in this turn of the event loop."""
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
            self.make_room()
        if self.answered and self.closed is None:
            self.reset_answered()

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

    def close(self, code: grpc.StatusCode | None = None) -> None:
        """Closes the connection. `code` is recorded for its open calls; without it, they count as cancelled."""
        if self.closed is None:
            self.closed = time.monotonic()
            self._transport.close()
            self.close_streams(code)

    def abort(self) -> None:
        """Closes the connection without sending what is left."""
        self.closed = self.closed or time.monotonic()
        self._transport.abort()

    def _end_flood(self) -> None:
        if self.closed is None:
            self._transport.write(FLOOD_GOAWAY)  # the session may not be able to do it any more
            self.close(grpc.StatusCode.RESOURCE_EXHAUSTED)

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
        self._intake.count_request()
        number = event.stream_id
        if self._is_left:
            self._refuse_late(number)
            return
        self.used = time.monotonic()
        stream = self.streams[number] = Stream(self, number, self._server.limits.message_bytes)
        stream.incoming.is_complete = event.end_stream
        try:
            head = read_head(event.headers)
        except NotGrpcError as error:
            stream.reject(error)
        else:
            stream.begin(head, self._server.find(head.path))

    def _refuse_late(self, number: int) -> None:
        """Refuses a request that came after the caller's GOAWAY."""
        self._late_requests += 1
        if self._late_requests > _MAX_LATE_REQUESTS:
            self._end_flood()
        else:
            self.reset(number, REFUSED_STREAM)

    def _on_goaway(self, _: GoAwayReceived) -> None:
        self._is_left = True

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
        self.close_stream(event.stream_id, is_sent=event.error_code == NO_ERROR)

    def _on_ping_acknowledged(self, event: PingAcknowledged) -> None:
        self.pinged = None
        if event.opaque_data == _LEAVING:
            self.finish()

    def _on_settings_acknowledged(self, _: SettingsAcknowledged) -> None:
        self.greeted = True

    def _end_session(self) -> None:
        """Sends what the session has left, a GOAWAY for example, and closes the connection."""
        if self.is_writable and self.closed is None:
            with suppress(SessionError, MemoryError):  # the connection is closed in any case
                self._transport.write(self.session.data_to_send())
        self.close()


_HANDLERS: dict[type, Callable[[Connection, Any], None]] = {
    RequestReceived: Connection._on_request,  # noqa: SLF001 - this class's own methods
    DataReceived: Connection._on_data,  # noqa: SLF001
    GoAwayReceived: Connection._on_goaway,  # noqa: SLF001
    RequestTrailersReceived: Connection._on_request_trailers,  # noqa: SLF001
    StreamClosed: Connection._on_stream_closed,  # noqa: SLF001
    PingAcknowledged: Connection._on_ping_acknowledged,  # noqa: SLF001
    SettingsAcknowledged: Connection._on_settings_acknowledged,  # noqa: SLF001
}
"""Events without a handler need none: after each batch of events, what has room in the windows is sent."""

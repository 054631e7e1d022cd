"""A gRPC server on our own HTTP/2 transport: handlers, sockets, limits and the life of connections."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from doherty_service.http2._connection import Connection
from doherty_service.http2._intake import Intake
from doherty_service.http2._limits import Limits
from doherty_service.http2._timeouts import Timeouts, watch
from doherty_service.http2._tls import TlsListener
from doherty_service.process import bind_all
from doherty_service.rpc import LatencyInterceptor, Method
from doherty_service.security import Certificates
from doherty_service.telemetry import log_error

if TYPE_CHECKING:
    import socket

    # Generic for type checkers only.
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler

_BACKLOG = 1024

_TURN_REQUESTS, _TURN_SECONDS = 32, 0.005
"""What a turn of the event loop receives from connections on which a caller was accepted."""
_UNACCEPTED_TURN_REQUESTS, _UNACCEPTED_TURN_SECONDS = 8, 0.001
"""What it receives from all other connections together. The handlers of 8 such requests take about 1 ms."""

_READ_BYTES, _UNACCEPTED_READ_BYTES = 256 << 10, 4 << 10
"""The bytes that are read at once. A connection holds as many while it waits for its turn."""

_FLUSHED_TOGETHER = 16
"""At most so many connections wait for the end of the turn. If there are more, the tokens of the first ones leave
sooner. The code that makes messages and the code that sends them still run several times in a row, which saves CPU
time."""

_SENT_CHECK_SECONDS = 0.01


class _CallDetails(NamedTuple):
    """What the interceptor is told of a call."""

    method: str
    invocation_metadata: tuple[()] = ()


class Http2Server:
    """A server with one interceptor. Handlers are added as to a server of grpc.aio."""

    def __init__(self, interceptor: LatencyInterceptor, limits: Limits, timeouts: Timeouts) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits
        self.intake = Intake(self.loop, _TURN_REQUESTS, _TURN_SECONDS)
        self.unaccepted_intake = Intake(self.loop, _UNACCEPTED_TURN_REQUESTS, _UNACCEPTED_TURN_SECONDS)
        self.read_buffer = memoryview(bytearray(_READ_BYTES))
        self.unaccepted_read_buffer = self.read_buffer[:_UNACCEPTED_READ_BYTES]
        self.connections: set[Connection] = set()
        self._interceptor = interceptor
        self._timeouts = timeouts
        self._generic: list[grpc.GenericRpcHandler] = []
        self._methods: dict[bytes, Method] = {}
        """By path."""
        self._sockets: list[socket.socket] = []
        self._listeners: list[asyncio.Server] = []
        self._tls_listeners: list[TlsListener] = []
        self._watching: asyncio.Task[None] | None = None
        self._unflushed: list[Connection] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds services. gRPC's generated code calls this."""
        self._generic += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Does nothing: the generated code adds the same methods with `add_generic_rpc_handlers`, too."""

    def listen(self, address: str, certificates: Certificates | None) -> int:
        """Binds HOST:PORT, and returns the actual port. Connections are accepted from `start` on.

        Raises:
            OSError: The address cannot be bound.
        """
        bound, port = bind_all(address)
        if certificates is None:
            self._sockets = bound
        else:
            self._tls_listeners = [TlsListener(each, certificates, self._connect) for each in bound]
        return port

    async def start(self) -> None:
        """Begins to accept connections."""
        for listener in self._sockets:
            self._listeners.append(await self.loop.create_server(self._connect, sock=listener, backlog=_BACKLOG))
        for tls_listener in self._tls_listeners:
            tls_listener.start(timeout=self._timeouts.handshake, has_room=self._has_room)
        self._watching = self.loop.create_task(watch(self.connections, self._timeouts))

    def stop_listening(self) -> None:
        """Accepts no more connections."""
        for listener in self._listeners:
            listener.close()
        for tls_listener in self._tls_listeners:
            tls_listener.close()

    def retire(self) -> None:
        """Asks all callers to connect elsewhere. Calls in progress may finish."""
        for connection in self.connections:
            connection.retire()

    async def stop(self, grace: float) -> None:
        """Accepts no more connections, waits up to `grace` seconds for calls to end, and closes all connections."""
        self.stop_listening()
        self.retire()
        await self.replies_sent(grace)
        for connection in tuple(self.connections):
            connection.abort()
        for listener in self._tls_listeners:
            listener.abort()
        if self._watching is not None:
            self._watching.cancel()

    async def replies_sent(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns at the timeout, without an error
        """Waits until the calls that are open now have ended, at most for `timeout` seconds."""
        streams = [stream for connection in self.connections for stream in connection.streams.values()]
        ends_at = self.loop.time() + timeout
        if tasks := [stream.task for stream in streams if stream.task is not None]:
            await asyncio.wait(tasks, timeout=timeout)
        # The socket may not have taken everything yet.
        while any(each.has_unsent for each in self.connections) and self.loop.time() < ends_at:  # noqa: ASYNC110 - polls
            await asyncio.sleep(_SENT_CHECK_SECONDS)

    def count_connections(self) -> int:
        """Returns the number of open connections. Thread-safe."""
        return len(self.connections)

    # What connections call.

    def find(self, path: bytes) -> Method:
        """Returns what serves a method."""
        if (known := self._methods.get(path)) is not None:
            return known
        details = _CallDetails(path.decode(errors="replace"))
        found = (generic.service(details) for generic in self._generic)  # type: ignore[arg-type]  # a protocol with the same fields
        handler = next((handler for handler in found if handler is not None), None)
        method = self._interceptor.method(handler, details.method)
        if handler is not None:
            self._methods[path] = method
        return method

    def admit(self, connection: Connection) -> bool:
        """Counts a new connection; returns False if there are too many."""
        if len(self.connections) >= self.limits.connections:
            return False
        self.connections.add(connection)
        return True

    def _connect(self) -> Connection:
        return Connection(self)

    def _has_room(self) -> bool:
        """Whether one more connection is allowed. Those whose handshake is not complete count, too."""
        handshakes = sum(listener.handshakes for listener in self._tls_listeners)
        return len(self.connections) + handshakes < self.limits.connections

    def forget(self, connection: Connection) -> None:
        """Records that a connection was closed."""
        self.connections.discard(connection)

    def flush_soon(self, connection: Connection) -> None:
        """Flushes a connection in this turn of the event loop."""
        if len(self._unflushed) == _FLUSHED_TOGETHER:
            self._flush()
        if not self._unflushed:
            self.loop.call_soon(self._flush)
        self._unflushed.append(connection)

    def _flush(self) -> None:
        unflushed: Sequence[Connection]
        unflushed, self._unflushed = self._unflushed, []
        for connection in unflushed:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - it must not stop the other connections
                log_error("connection_failed", cause=error)
                connection.abort()

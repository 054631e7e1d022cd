"""One channel to one target."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from doherty._core._channel import channel_options
from doherty._sync._interrupt import DeferredInterrupt
from doherty.v1.generation_service_pb2_grpc import GenerationServiceStub
from doherty.v1.latency_service_pb2_grpc import LatencyServiceStub

if TYPE_CHECKING:
    from doherty._core._actions import Rpc
    from doherty._core._channel import Interceptor
    from doherty._core._settings import Settings

_END_TIMEOUT: Final = 5.0
"""How many seconds `close` waits for gRPC."""


class Connection:
    """The channel to one target. Threads may share it."""

    def __init__(self, target: str, settings: "Settings") -> None:
        """Creates no gRPC objects yet, so that the process may fork until the first call."""
        self._target = target
        self._settings = settings
        self._opened: _Opened | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def rpc(self, name: "Rpc") -> Any:
        """Returns the callable of a method.

        Raises:
            ValueError: The connection is closed.
        """
        opened = self._opened or self._open()
        if name == "Check":
            from doherty._core._health import CHECK, decode_status, encode_service  # noqa: PLC0415 - most never ask

            return opened.channel.unary_unary(CHECK, encode_service, decode_status)
        return getattr(opened.latency if name == "GetLatency" else opened.generation, name)

    def follow(self, call: Any, on_end: Callable[[], None] = lambda: None) -> None:
        """Calls `on_end` when a call that gRPC's thread serves has ended. `close` waits for that."""
        if self._opened is None:
            raise AssertionError("a call has a channel")
        self._opened.calls.follow(call, on_end)

    def close(self) -> None:
        """Cancels all calls, closes the channel, and returns when gRPC's thread has ended."""
        with self._lock:
            self._is_closed = True
        if self._opened is not None:
            with DeferredInterrupt():
                self._opened.close()
            self._opened.calls.wait_for_end()

    def _open(self) -> "_Opened":
        with self._lock:
            if self._is_closed:
                raise ValueError("The connection is closed.")
            if self._opened is None:
                self._opened = _Opened(self._target, self._settings)
            return self._opened


class _Opened:
    """The gRPC objects of a connection."""

    def __init__(self, target: str, settings: "Settings") -> None:
        """Does not connect yet: gRPC does that with the first call."""
        options = channel_options(target, weighted=settings.weighted, chosen=settings.channel_options)
        channel = (
            grpc.insecure_channel(target, options)
            if settings.credentials is None
            else grpc.secure_channel(target, settings.credentials, options)
        )
        interceptors = cast("Sequence[Interceptor]", settings.interceptors)
        self.channel = grpc.intercept_channel(channel, *interceptors) if interceptors else channel
        self.generation = GenerationServiceStub(self.channel)
        self.latency = LatencyServiceStub(self.channel)
        self.calls = _Calls()
        # If the state of a channel was requested and the channel is open at interpreter exit, gRPC waits forever for a
        # thread that is gone. This closes the channel before that, or when the client is dropped.
        self.close = weakref.finalize(self, _close, self.channel, os.getpid())


class _Calls:
    """The running calls of a channel that gRPC's thread serves. The thread ends with the last of them."""

    def __init__(self) -> None:
        self._running: set[object] = set()
        """One object for each running call."""
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closing: threading.Event | None = None
        """Set when the last call has ended, if a thread waits for that."""

    def follow(self, call: Any, on_end: Callable[[], None]) -> None:
        """Calls `on_end` when a call has ended."""
        running = object()
        self._running.add(running)

        def note_end() -> None:
            on_end()
            self._running.discard(running)
            if self._closing is not None and not self._running:
                self._closing.set()

        def end() -> None:
            self._thread = threading.current_thread()
            note_end()

        # gRPC calls this in its thread whenever a call ends, even when the call is dropped.
        if not call.add_callback(end):
            note_end()

    def wait_for_end(self) -> None:
        """Returns when the calls of a channel that was closed, and the thread, have ended."""
        if os.getpid() != self._pid:
            return  # a fork does not have the thread
        self._closing = self._closing or threading.Event()
        if self._running:
            self._closing.wait(_END_TIMEOUT)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_TIMEOUT)


def _close(channel: grpc.Channel, pid: int) -> None:
    # A fork does not have the channel's threads.
    if os.getpid() == pid:
        channel.close()

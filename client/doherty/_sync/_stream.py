"""A stream of deltas."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

from doherty._core._actions import Receive, Send, next_action
from doherty._core._results import Delta, Generation, ParsedT_co
from doherty._core._stream import StreamState
from doherty._core._stream_view import StreamView
from doherty._sync._alarm import Alarm
from doherty._sync._interrupt import DeferredInterrupt

if TYPE_CHECKING:
    from doherty._core._actions import Action
    from doherty._core._events import StreamEvent
    from doherty._core._request import PlannedRequest
    from doherty._sync._pool import Pool
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse


class GenerationStream(StreamView, Generic[ParsedT_co]):
    """An answer while it is generated: an iterator of deltas, and a context manager.

    One thread reads it; any thread may close it. The request on the server ends immediately if you leave the context,
    call `close`, or drop the object. If the server is lost, the stream continues on another server, or on the same one
    when it is back, exactly after the part that was received; `resumed` counts this.
    """

    _call: Any = None
    """The current attempt, an iterator of messages; None before the first one."""
    _stopped: threading.Event | None = None
    """Ends a pause; absent before the first pause."""
    _alarm: Alarm | None = None
    """Ends waits that take too long, if the caller has limited them."""

    def __init__(self, pool: "Pool", planned: "PlannedRequest") -> None:
        """Sends the request."""
        self._pool = pool
        self._state = StreamState(pool.dispatch, planned)
        self._actions = self._state.actions()
        if planned.needs_stream:
            self._alarm = Alarm(self._lose_patience, pool.alarms)
        try:
            self._pending = self._advance(None)
            """The actions up to the first attempt that can be read."""
            while self._pending is not None:
                self._pending = self._advance(pool.carry_out(self._pending, self._stopped))
        except BaseException:
            self.close()  # a Ctrl-C's traceback may keep this object
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        if (first := self._state.take_first_delta()) is not None:
            return first
        while (message := self._read()) is not None:
            if (delta := self._state.feed(message)) is not None:
                return delta
        raise StopIteration

    def __enter__(self) -> Self:
        """Waits until a server has admitted the request, for as many attempts as that takes.

        Raises:
            RpcError: The server refused the request, or the call failed.
            StreamError: The stream was closed.
        """
        try:
            if not self._state.events.is_admitted:
                self._state.keep(self._read(until_event=True))
        except BaseException:
            self.close()  # also after a Ctrl-C
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._call is not None and self._pool.dispatch.is_of_this_process():
            self.close()

    @property
    def text_stream(self) -> Iterator[str]:
        """An iterator of the remaining texts. It skips empty ones."""
        return (delta.text for delta in self if delta.text)

    def events(self) -> "Iterator[StreamEvent[ParsedT_co]]":
        """Returns an iterator of the remaining events, including deltas.

        It begins with StreamStarted, even if that happened earlier, and ends with StreamFinished. In between,
        each ServerLost is followed by StreamResumed, unless the stream fails.

        Raises the same errors as reading the stream and `result`.
        """
        from doherty._core._events import StreamFinished  # noqa: PLC0415 - few programs ask for events

        while True:
            event = self._next_event()
            yield event
            if isinstance(event, StreamFinished):
                return

    def result(self) -> Generation[ParsedT_co]:
        """Reads the rest, and returns the whole answer.

        Raises:
            StreamError: The stream ended before the answer was complete, or was closed.
            ParseError: The answer does not fit the schema.
            RpcError: The call failed.
        """
        for _ in self:
            pass
        return self._state.generation()

    def close(self) -> None:
        """Ends the request on the server immediately, unless the answer is complete."""
        if self._state.close():
            self._stop()
        if self._alarm is not None:
            self._alarm.stop()

    def _stop(self) -> None:
        """Ends the attempt, or the pause before the next one."""
        with DeferredInterrupt():
            if self._stopped is not None:
                self._stopped.set()
            if self._call is not None:
                self._call.cancel()

    def _lose_patience(self) -> None:
        if self._state.run_out_of_patience():
            self._stop()

    def _next_event(self) -> "StreamEvent[ParsedT_co]":
        """Waits for the next event. The last one is StreamFinished."""
        from doherty._core._events import StreamFinished, make_event  # noqa: PLC0415 - few programs ask for events

        state = self._state
        while not state.events.unread:
            if (first := state.take_first_delta()) is not None:
                return first
            if (message := self._read(until_event=True)) is not None:
                state.keep(message)
            elif not state.events.unread:
                return StreamFinished(state.generation())
        return make_event(state.events.unread.popleft())

    def _hear_admission(self) -> bool:
        """Waits for the admission or for the first message, and returns whether the admission was reported."""
        events = self._state.events
        return not events.is_admitted and events.read_metadata(self._call.initial_metadata())

    def _read(self, *, until_event: bool = False) -> "StreamGenerateResponse | None":
        """Waits for the next message, for as many attempts as that takes; returns None after the last one.

        Args:
            until_event: Whether to return None when there is an event, too.
        """
        if self._alarm is None:
            message = self._next_message(until_event=until_event)
        else:
            begun = monotonic()
            with self._alarm.limit(self._state.patience):
                message = self._next_message(until_event=until_event)
            if message is None and not self._state.ended:
                self._state.waited(monotonic() - begun)
        if message is not None or not self._state.ended:
            return message
        if self._alarm is not None:
            self._alarm.stop()
        if self._state.failure is not None:
            raise self._state.failure
        return None

    def _next_message(self, *, until_event: bool) -> "StreamGenerateResponse | None":
        state = self._state
        while not state.ended and not (until_event and state.events.unread):
            self._pool.dispatch.check_process()
            if self._pending is not None:
                self._pending = self._advance(self._pool.carry_out(self._pending, self._stopped))
                continue
            try:
                with DeferredInterrupt(self._call.cancel):
                    if until_event and self._hear_admission():
                        continue
                    message: StreamGenerateResponse | None = next(self._call, None)
                    if message is None:
                        state.keep_metadata(self._call.initial_metadata(), self._call.trailing_metadata())
                    elif state.awaits_metadata:
                        state.keep_metadata(self._call.initial_metadata(), ())
            except Exception as error:  # noqa: BLE001 - interceptors may raise anything
                self._pending = self._advance(error)
            else:
                if message is not None:
                    return message
                self._pending = self._advance(None)
        return None

    def _advance(self, result: object) -> "Action | None":
        """Starts the next attempt if it is due; otherwise returns the next action."""
        while isinstance(action := next_action(self._actions, result), Send) and action.rpc == "StreamGenerate":
            # Interceptors may take long, and nothing ends their waits.
            with nullcontext() if self._pool.dispatch.settings.interceptors else DeferredInterrupt():
                result = self._begin(action)
        if action is None or isinstance(action, Receive):
            return None
        # The thread that closes the stream first records its end, and then sets this.
        self._stopped = self._stopped or threading.Event()
        return action

    def _begin(self, send: Send) -> Exception | None:
        try:
            call = self._pool.call(send)
        except ValueError as error:
            return error
        except BaseException:
            self._pool.dispatch.targets.end(send.target)
            raise
        if not hasattr(call, "add_callback"):
            return TypeError(f"An interceptor returned a {type(call).__name__} for a stream: gRPC asks for a Call.")
        self._call = call
        self._pool.follow(self._call, send.target)
        if self._state.ended:
            # Another thread closed the stream in the meantime, when it knew only the previous call.
            self._call.cancel()
        return None

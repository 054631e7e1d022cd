"""A stream of deltas on an event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Self

import grpc
import grpc.aio

from doherty._aio._loop import cancels_task
from doherty._aio._patience import Patience
from doherty._core._actions import Receive, Send, next_action
from doherty._core._results import Delta, Generation, ParsedT_co
from doherty._core._stream import StreamState
from doherty._core._stream_view import StreamView

if TYPE_CHECKING:
    from doherty._aio._pool import AsyncPool
    from doherty._core._actions import Action
    from doherty._core._events import StreamEvent
    from doherty._core._request import PlannedRequest
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse

_EOF: Final = grpc.aio.EOF


class AsyncGenerationStream(StreamView, Generic[ParsedT_co]):
    """An answer while it is generated: an asynchronous iterator of deltas, and a context manager.

    One task reads it; any task may close it. The request on the server ends immediately if you leave the context, call
    `close`, drop the object, or cancel the task that reads it. If the server is lost, the stream continues on another
    server, or on the same one when it is back, exactly after the part that was received; `resumed` counts this.
    """

    _call: Any = None
    """The current attempt; None while the API key is fetched."""

    def __init__(self, pool: "AsyncPool", planned: "PlannedRequest") -> None:
        """Sends the request."""
        self._pool = pool
        self._state = StreamState(pool.dispatch, planned)
        self._actions = self._state.actions()
        self._stopped = asyncio.Event()
        self._patience = Patience(pool.loop, self._lose_patience) if planned.needs_stream else None
        """Ends waits that take too long, if the caller has limited them."""
        self._pending = self._advance(None)
        """The actions up to the first attempt that can be read."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        if (first := self._state.take_first_delta()) is not None:
            return first
        while (message := await self._read()) is not None:
            if (delta := self._state.feed(message)) is not None:
                return delta
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        """Waits until a server has admitted the request, for as many attempts as that takes.

        Raises:
            RpcError: The server refused the request, or the call failed.
            StreamError: The stream was closed.
        """
        try:
            if not self._state.events.is_admitted:
                self._state.keep(await self._read(until_event=True))
        except BaseException:
            await self.close()  # also after an error of an interceptor
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if hasattr(self, "_pending") and self._pool.dispatch.is_of_this_process() and self._state.close():
            # The garbage collector runs in any thread. A loop that is closed has lost its calls with its channels.
            with suppress(RuntimeError):
                self._pool.loop.call_soon_threadsafe(self._stop)
                if self._patience is not None:
                    self._pool.loop.call_soon_threadsafe(self._patience.stop)

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """An asynchronous iterator of the remaining texts. It skips empty ones."""
        return _Texts(self)

    def events(self) -> "AsyncIterator[StreamEvent[ParsedT_co]]":
        """Returns an asynchronous iterator of the remaining events, including deltas.

        It begins with StreamStarted, even if that happened earlier, and ends with StreamFinished. In between,
        each ServerLost is followed by StreamResumed, unless the stream fails.

        Raises the same errors as reading the stream and `result`.
        """
        return _Events(self._next_event)

    async def result(self) -> Generation[ParsedT_co]:
        """Reads the rest, and returns the whole answer.

        Raises:
            StreamError: The stream ended before the answer was complete, or was closed.
            ParseError: The answer does not fit the schema.
            RpcError: The call failed.
        """
        async for _ in self:
            pass
        return self._state.generation()

    async def close(self) -> None:
        """Ends the request on the server immediately, unless the answer is complete."""
        self._cancel()
        self._end_patience()

    def _cancel(self) -> None:
        if self._state.close():
            self._stop()

    def _stop(self) -> None:
        """Ends the attempt, or the pause before the next one."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.stop()

    def _lose_patience(self) -> None:
        if self._state.run_out_of_patience():
            self._stop()

    async def _next_event(self) -> "StreamEvent[ParsedT_co]":
        """Waits for the next event. The last one is StreamFinished."""
        from doherty._core._events import StreamFinished, make_event  # noqa: PLC0415 - few programs ask for events

        state = self._state
        while not state.events.unread:
            if (first := state.take_first_delta()) is not None:
                return first
            if (message := await self._read(until_event=True)) is not None:
                state.keep(message)
            elif not state.events.unread:
                return StreamFinished(state.generation())
        return make_event(state.events.unread.popleft())

    async def _hear_admission(self) -> bool:
        """Waits for the admission or for the first message, and returns whether the admission was reported."""
        events = self._state.events
        return not events.is_admitted and events.read_metadata(await self._call.initial_metadata())

    async def _read(self, *, until_event: bool = False) -> "StreamGenerateResponse | None":
        """Waits for the next message, for as many attempts as that takes; returns None after the last one.

        Args:
            until_event: Whether to return None when there is an event, too.
        """
        if not self._state.ended:
            self._pool.check_loop()
        try:
            if self._patience is None:
                message = await self._next_message(until_event=until_event)
            else:
                message = await self._wait_patiently(self._patience, until_event=until_event)
        except asyncio.CancelledError:
            # gRPC does not cancel a call whose request is still being sent.
            self._cancel()
            raise
        if message is not None or not self._state.ended:
            return message
        self._end_patience()
        if self._state.failure is not None:
            raise self._state.failure
        return None

    async def _wait_patiently(self, patience: Patience, *, until_event: bool) -> "StreamGenerateResponse | None":
        begun = self._pool.loop.time()
        patience.begin(self._state.patience)
        try:
            message = await self._next_message(until_event=until_event)
        finally:
            patience.end()
        if message is None and not self._state.ended:
            self._state.waited(self._pool.loop.time() - begun)
        return message

    async def _next_message(self, *, until_event: bool) -> "StreamGenerateResponse | None":
        state = self._state
        while not state.ended and not (until_event and state.events.unread):
            if self._pending is not None:
                self._pending = self._advance(await self._pool.carry_out(self._pending, self._stopped))
                continue
            try:
                if until_event and await self._hear_admission():
                    continue
                message: Any = await self._call.read()
            except (asyncio.CancelledError, Exception) as error:  # interceptors may raise anything
                if cancels_task(error):
                    raise
                self._pending = self._advance(error)
            else:
                if message is not _EOF:
                    if state.awaits_metadata:
                        state.keep_metadata(await self._call.initial_metadata(), ())
                    received: StreamGenerateResponse = message
                    return received
                state.keep_metadata(await self._call.initial_metadata(), await self._call.trailing_metadata())
                self._pending = self._advance(None)
        return None

    def _advance(self, result: object) -> "Action | None":
        """Starts the next attempt if it is due; otherwise returns the next action."""
        while isinstance(action := next_action(self._actions, result), Send) and action.rpc == "StreamGenerate":
            result = self._begin(action)
        return None if isinstance(action, Receive) else action

    def _begin(self, send: Send) -> grpc.aio.UsageError | None:
        try:
            self._call = self._pool.call(send)
        except grpc.aio.UsageError as error:
            return error
        self._pool.connection(send.target).streams.add(self._call)
        # gRPC calls this at every end of a call, even when the stream is dropped.
        targets = self._pool.dispatch.targets
        self._call.add_done_callback(lambda _: targets.end(send.target))
        return None


class _Events(Generic[ParsedT_co]):
    """The events of a stream. This is not an asynchronous generator, for the reason given in `_Texts`."""

    def __init__(self, next_event: "Callable[[], Awaitable[StreamEvent[ParsedT_co]]]") -> None:
        self._next_event = next_event
        self._is_finished = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "StreamEvent[ParsedT_co]":
        if self._is_finished:
            raise StopAsyncIteration
        from doherty._core._events import StreamFinished  # noqa: PLC0415 - few programs ask for events

        event = await self._next_event()
        self._is_finished = isinstance(event, StreamFinished)
        return event


class _Texts:
    """The texts of a stream. After a `break`, an asynchronous generator would stay open until the loop finalizes it."""

    def __init__(self, stream: AsyncGenerationStream[Any]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        async for delta in self._stream:
            if delta.text:
                return delta.text
        raise StopAsyncIteration

"""A stream of deltas."""

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self

import grpc

from doherty._core._errors import DohertyError
from doherty._core._results import Delta, Generation, ParsedT_co, Timings
from doherty._core._stream import Plan, StreamState
from doherty._sync._alarm import Alarm
from doherty._sync._attempt import Attempt

if TYPE_CHECKING:
    from doherty._sync._pool import Pool
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse


class GenerationStream(Generic[ParsedT_co]):
    """An answer while it comes into being: an iterator of deltas, and a context manager.

    One thread reads it; any may close it. Leaving the context, `close` and dropping the object end the request at the
    server at once. When its server is lost, it goes on at another one, or at the same one as soon as that is back,
    right behind what was received; `resumed` counts it.
    """

    def __init__(self, pool: "Pool", plan: Plan) -> None:
        """Sends the request."""
        self._pool = pool
        self._course = pool.dispatch.course(plan.timeout, resume=True)
        self._state = StreamState(plan, self._course, resume=pool.settings.resume)
        self._stopped = threading.Event()
        self._alarm = Alarm(self._lose_patience)
        self._attempt = Attempt(pool, self._state, self._course)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        while (message := self._read()) is not None:
            if (delta := self._state.feed(message)) is not None:
                return delta
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # There is no attempt where the constructor failed.
        if hasattr(self, "_attempt") and self._pool.dispatch.is_of_this_process():
            self.close()

    @property
    def text(self) -> str:
        """The text that was received so far; it stays after an error."""
        return self._state.text

    @property
    def text_stream(self) -> Iterator[str]:
        """The rest of the stream as an iterator of texts, none of them empty."""
        return (delta.text for delta in self if delta.text)

    @property
    def request_id(self) -> str | None:
        """The id under which the server logs the request; before its first message, the caller's own or None."""
        return self._state.request_id

    @property
    def timings(self) -> Timings | None:
        """The server's timings; None until the answer is complete."""
        return self._state.timings

    @property
    def resumed(self) -> int:
        """How many times the answer was cut off and went on, at another server or at the same one."""
        return self._state.resumed

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
        """Ends the request at the server at once, unless the answer is complete."""
        if self._state.close():
            self._stop()
        self._alarm.stop()

    def _stop(self) -> None:
        """Ends the attempt, or the pause before the next one."""
        self._stopped.set()
        self._attempt.cancel()

    def _lose_patience(self) -> None:
        if self._state.run_out_of_patience():
            self._stop()

    def _read(self) -> "StreamGenerateResponse | None":
        """Waits for the next message, in as many attempts as it takes; None behind the last one."""
        with self._alarm.limit(self._state.patience):
            while not self._state.ended:
                self._pool.dispatch.check_process()
                try:
                    message = self._attempt.read()
                except grpc.RpcError as error:
                    self._recover(error)
                else:
                    if message is not None:
                        return message
                    self._recover(None)
        self._alarm.stop()
        if self._state.failure is not None:
            raise self._state.failure
        return None

    def _recover(self, error: grpc.RpcError | None) -> None:
        """Ends the stream, or begins the next attempt.

        Args:
            error: What gRPC raised; None where the server sends no more.
        """
        if self._state.complete:
            # What goes wrong behind the summary is nothing to tell.
            self._state.ended = True
        if self._state.ended:
            return
        pause = self._pool.after(error, self._attempt.target, self._course, begun=self._state.begun)
        if isinstance(pause, DohertyError):
            self._state.give_up(pause, error)
            return
        self._pool.pause(pause, self._stopped)
        if self._state.ended:
            return
        try:
            self._attempt = Attempt(self._pool, self._state, self._course)
        except DohertyError as failure:
            self._state.fail(failure)
        if self._state.ended:
            # Another thread closed the stream in the meantime, and knew the attempt before only.
            self._attempt.cancel()

"""A stream of deltas."""

from collections.abc import Iterator
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import grpc

from doherty._core._log import log_call
from doherty._core._results import Delta, Generation, Timings
from doherty._core._stream import StreamState
from doherty._sync._connection import Connection

if TYPE_CHECKING:
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse
    from doherty.v1.request_pb2 import GenerateRequest


class GenerationStream:
    """An answer while it comes into being: an iterator of deltas, and a context manager.

    One thread reads it; any may close it. Leaving the context, `close` and dropping the object end the request at the
    server at once.
    """

    def __init__(self, connection: Connection, request: "GenerateRequest", timeout: float | None) -> None:
        """Sends the request."""
        self._state = StreamState(request.request_id or None)
        self._request = request
        self._connection = connection
        self._started = perf_counter()
        self._call = connection.stream(request, timeout)

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
        # There is no call where the constructor failed.
        if hasattr(self, "_call"):
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

    def result(self) -> Generation:
        """Reads the rest, and returns the whole answer.

        Raises:
            StreamError: The stream ended before the answer was complete, or was closed.
            RpcError: The call failed.
        """
        for _ in self:
            pass
        return self._state.generation()

    def close(self) -> None:
        """Ends the request at the server at once, unless the answer is complete."""
        if not self._state.ended and not self._state.complete:
            self._state.fail(self._state.error("The stream was closed before its answer was complete."))
            cast("grpc.Future[object]", self._call).cancel()

    def _read(self) -> "StreamGenerateResponse | None":
        if self._state.failure is not None:
            raise self._state.failure
        if self._state.ended:
            return None
        try:
            return next(self._call)
        except StopIteration:
            self._state.end()
            log_call(self._request, self._connection.target, self._started, "OK")
        except grpc.RpcError as error:
            self._give_up(error)
        return None

    def _give_up(self, error: grpc.RpcError) -> None:
        """Ends the stream for what gRPC raised, which is nothing to tell once the answer is complete."""
        if self._state.complete:
            self._state.ended = True
        elif self._state.failure is not None:
            # Another thread closed the stream while this one waited for a message.
            raise self._state.failure from error
        else:
            failure = self._connection.failed(error, self._request, self._started, begun=self._state.begun)
            raise self._state.fail(failure) from error

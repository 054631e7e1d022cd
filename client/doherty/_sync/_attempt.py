"""One try at a stream, on one target."""

from time import perf_counter
from typing import TYPE_CHECKING, cast

import grpc

from doherty._core._errors import ClientClosedError
from doherty._core._log import log_attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doherty._core._retry import Course
    from doherty._core._stream import StreamState
    from doherty._sync._pool import Pool
    from doherty.v1.generation_service_pb2 import StreamGenerateResponse


class Attempt:
    """The messages of one StreamGenerate call."""

    def __init__(self, pool: "Pool", state: "StreamState", course: "Course") -> None:
        """Chooses a target and sends the request there."""
        self.target = pool.dispatch.begin(course)
        self._targets = pool.dispatch.targets
        self._started = perf_counter()
        self._fresh = True
        try:
            self._request = state.next_request()
            self._call: Iterator[StreamGenerateResponse] = pool.connection(self.target).generation.StreamGenerate(
                self._request, timeout=course.remaining(), metadata=(*pool.settings.metadata, *course.metadata)
            )
        except BaseException as error:
            self._targets.end(self.target)
            if pool.dispatch.closed and isinstance(error, ValueError):
                raise ClientClosedError("The client was closed.") from error
            raise
        # gRPC calls it however the call ends, also when the stream is dropped.
        targets, target = self._targets, self.target
        if not cast("grpc.Call", self._call).add_callback(lambda: targets.end(target)):
            targets.end(target)

    def read(self) -> "StreamGenerateResponse | None":
        """Waits for the next message; None when the server sends no more.

        Raises:
            grpc.RpcError: The call failed.
        """
        try:
            message = next(self._call)
        except StopIteration:
            log_attempt(self._request, self.target.name, self._started)
            return None
        except grpc.RpcError as error:
            log_attempt(self._request, self.target.name, self._started, error)
            raise
        if self._fresh:
            self._fresh = False
            self._targets.worked(self.target)
        return message

    def cancel(self) -> None:
        """Ends the request at the server at once."""
        cast("grpc.Future[object]", self._call).cancel()

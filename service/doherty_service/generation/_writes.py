"""Messages on their way to a caller: written without a task, and watched in case the caller stops reading."""

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Coroutine

_LOOKS = 4
"""How often the watch looks within the time for which a caller may stall."""


_MOST_BUFFERED = 32 << 10
"""Bytes of a message that core surely takes at once, whether the caller reads or not: it has 64 kB for each call."""


class MessageWriter:
    """Writes messages to one caller, one at a time.

    A write of grpc.aio is a coroutine that waits for one future. Its first step runs at once, and its last one when the
    future is resolved: a task for each message would cost more than the write.
    """

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any] | None") -> None:
        if context is None:
            raise AssertionError("only an RPC of its own can be written to")
        self._context = context
        self._has_written = False
        self._writing: Coroutine[Any, Any, None] | None = None
        self.write_began: float | None = None
        """When the message that the transport has not taken yet was handed to it, by `time.monotonic()`."""

    @abstractmethod
    def written(self, error: Exception | None) -> None:
        """Called when the transport has taken a message, or with the error when the caller is gone."""

    @abstractmethod
    def stall(self) -> None:
        """Called when a message was not taken for too long."""

    def write(self, message: bytes) -> None:
        """Hands a message to the transport; `written` is called when the next one may follow."""
        self.write_began = time.monotonic()
        may_wait = len(message) > _MOST_BUFFERED
        self._writing = self._context.write(message) if self._has_written or not may_wait else self._begin_with(message)
        self._has_written = True
        self._step()

    async def _begin_with(self, message: bytes) -> None:
        """Writes a first message that may have to wait for the caller to read.

        grpc.aio sends the initial metadata together with the first message, and until that is taken it would send them
        again with the status: core refuses the second ones, and the caller would never be told a status.
        """
        await self._context.send_initial_metadata(())
        await self._context.write(message)

    def _step(self, _: object = None) -> None:
        if self._writing is None:
            raise AssertionError("nothing is being written")
        try:
            future = self._writing.send(None)
        except StopIteration:
            error = None
        except (asyncio.CancelledError, grpc.aio.BaseError) as broken:
            # The caller is gone, and gRPC cancels the RPC's own task.
            error = grpc.aio.InternalError(str(broken))
        else:
            future.add_done_callback(self._step)
            return
        self._writing = self.write_began = None
        self.written(error)


class WriteWatch:
    """Finds callers that have stopped reading.

    HTTP/2 and the sockets take some megabytes from the server before a write has to wait, so a caller is known to have
    stalled when one has waited for long.
    """

    def __init__(self) -> None:
        self._writers: set[MessageWriter] = set()

    def add(self, writer: MessageWriter) -> None:
        """Watches a writer until `remove`."""
        self._writers.add(writer)

    def remove(self, writer: MessageWriter) -> None:
        """Watches a writer no longer."""
        self._writers.discard(writer)

    async def run(self, timeout: float) -> None:  # noqa: ASYNC109 - of the callers, not of this
        """Stalls the writers whose message was not taken for `timeout` seconds; runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _LOOKS)
            oldest = time.monotonic() - timeout
            for writer in tuple(self._writers):
                if writer.write_began is not None and writer.write_began < oldest:
                    writer.stall()

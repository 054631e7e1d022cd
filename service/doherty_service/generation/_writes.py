"""Writes messages to callers without a task per message, and finds callers that stop reading."""

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty_service._batch import failure_of
from doherty_service.telemetry import awake

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from doherty_service._call import Call

_CHECKS = 4
"""How often the watch checks within the timeout."""


class MessageWriter:
    """Writes messages to one caller, one at a time.

    The coroutine of a write is driven by hand: the part before each future that it awaits runs at once, and the part
    after it when the future is resolved. A task per message would cost more than the write.
    """

    def __init__(self, call: "Call | None") -> None:
        if call is None:
            raise AssertionError("the record of a multiplexed request has no call")
        self._call = call
        self._writing: Coroutine[Any, Any, None] | None = None
        self._awaited: asyncio.Future[None] | None = None
        """The future that `_writing` awaits."""
        self._stopped: asyncio.Future[None] | None = None
        """Resolved when `stop` has ended the current write."""
        self.calls_written = False
        """Whether to call `written` after the current write. After a write that fails, it is always called."""
        self.write_began: float | None = None
        """When the current write began (`time.monotonic()`); None if no message is being sent."""

    @abstractmethod
    def written(self, error: Exception | None) -> None:
        """Called after a message was sent, if `calls_written` is set, or with the error of a failed write.

        It must not raise.
        """

    @abstractmethod
    def stall(self) -> None:
        """Called when the current write has taken too long; ends what is written."""

    def write(self, message: bytes) -> None:
        """Sends a message. Must not be called while `write_began` is set."""
        if not self._call.put(message):
            self._begin(self._call.start_write(message))
        elif self.calls_written:
            self.calls_written = False
            self.written(None)

    def send_metadata(self, metadata: "tuple[tuple[str, str], ...]") -> None:
        """Sends the initial metadata before the first message; does nothing if they are sent already."""
        if self.write_began is None:
            self._begin(self._call.send_initial_metadata(metadata))

    def _begin(self, operation: "Coroutine[Any, Any, None]") -> None:
        self.write_began = time.monotonic()
        self._writing = operation
        self._step(None)

    async def stop(self) -> None:
        """Ends the current write, if any: gRPC keeps an RPC as long as something waits for it.

        `written` is not called any more.
        """
        if self._awaited is None:
            return
        self._stopped = asyncio.get_running_loop().create_future()
        while not self._call.give_up(self._awaited):  # it is done, and the write may soon await another future
            await asyncio.sleep(0)
            if self._stopped.done():
                return
        await self._stopped  # grpc.aio must know first whether the initial metadata were sent

    def _step(self, awaited_before: "asyncio.Future[None] | None") -> None:
        error: Exception | None = None
        try:
            awaited = self._writing.send(None)  # type: ignore[union-attr]  # set by `write`
            awaited.add_done_callback(self._step)
            self._awaited = awaited
        except StopIteration:
            if (failed := failure_of(awaited_before)) is not None:
                error = grpc.aio.InternalError(str(failed))
        except (asyncio.CancelledError, grpc.aio.BaseError) as failure:
            # Any error of a write means that the caller has left. gRPC also cancels the task of the RPC.
            error = grpc.aio.InternalError(str(failure))
        else:
            return
        self._writing = self._awaited = self.write_began = None
        if self._stopped is not None:
            if not self._stopped.done():
                self._stopped.set_result(None)
            return
        if self.calls_written or error is not None:
            self.calls_written = False
            self.written(error)


class WriteWatch:
    """Finds callers that have stopped reading.

    HTTP/2 and the sockets buffer some megabytes before a write has to wait. So a caller has stopped reading if a write
    waits for a long time.
    """

    def __init__(self) -> None:
        self._writers: set[MessageWriter] = set()

    def add(self, writer: MessageWriter) -> None:
        """Watches a writer until `remove`."""
        self._writers.add(writer)

    async def remove(self, writer: MessageWriter) -> None:
        """Stops watching a writer, which will write no more messages."""
        try:
            await writer.stop()
        finally:
            self._writers.discard(writer)

    async def run(self, timeout: float) -> None:  # noqa: ASYNC109 - the callers' timeout, not this coroutine's
        """Calls `stall` of writers whose write takes longer than `timeout` seconds. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _CHECKS)
            self._check(timeout)

    def _check(self, timeout: float) -> None:
        # Not inlined into `run`: gRPC keeps an RPC as long as a local variable refers to its context.
        for writer in tuple(self._writers):
            if writer.write_began is not None and awake.seconds_since(writer.write_began) > timeout:
                writer.stall()

"""Writes messages to callers without a task per message, and finds callers that stop reading."""

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty_service.telemetry import awake

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from doherty_service._call import Call

_CHECKS = 4
"""How often the watch checks within the timeout."""

_MOST_BUFFERED = 32 << 10
"""A message of this many bytes is always accepted at once: gRPC's core buffers 64 kB per call."""


class MessageWriter:
    """Writes messages to one caller, one at a time.

    grpc.aio's `write` is a coroutine that awaits one future. It is driven by hand here: the part before the future runs
    at once, and the part after it when the future is resolved. A task per message would cost more than the write.
    """

    def __init__(self, call: "Call | None") -> None:
        if call is None:
            raise AssertionError("the record of a multiplexed request has no call")
        self._call = call
        self._has_written = False
        self._writing: Coroutine[Any, Any, None] | None = None
        self._awaited: asyncio.Future[None] | None = None
        """The future that `_writing` awaits."""
        self._metadata_sent = asyncio.Event()
        """Set once grpc.aio knows that the initial metadata were sent, alone or with the first message.

        It learns this when it resumes the coroutine, one turn of the loop after the future that the coroutine awaits.
        """
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
        if self._call.put(message):
            if not self._has_written:
                self._has_written = True
                self._metadata_sent.set()
            if self.calls_written:
                self.calls_written = False
                self.written(None)
            return
        self._begin(self._call.write(message) if self._has_written else self._write_first(message))

    def send_metadata(self, metadata: "tuple[tuple[str, str], ...]") -> None:
        """Sends the initial metadata before the first message; does nothing if they are sent already."""
        if not self._has_written:
            self._begin(self._call.send_initial_metadata(metadata))

    def _begin(self, operation: "Coroutine[Any, Any, None]") -> None:
        self._has_written = True
        self.write_began = time.monotonic()
        self._writing = operation
        self._step(None)

    async def _write_first(self, message: bytes) -> None:
        """Writes a first message. One that may have to wait until the caller reads follows its metadata."""
        if len(message) > _MOST_BUFFERED:
            await self._call.send_initial_metadata(())
            self._metadata_sent.set()
        await self._call.write(message)

    async def stop(self) -> None:
        """Stops waiting for the current write: gRPC keeps an RPC as long as something waits for it.

        But first waits until the initial metadata were sent. If the RPC ended before, grpc.aio would send them again
        with the status, core would refuse that, and the caller would never get a status. They are sent at once, unless
        the caller does not read its socket; `give_up` ends the wait then.
        """
        try:
            if self.write_began is not None:
                await self._metadata_sent.wait()
        finally:
            if self._awaited is not None:
                self._awaited.cancel()

    def give_up(self) -> None:
        """Called when the current write has taken too long."""
        self._metadata_sent.set()
        self.stall()

    def _step(self, _: object) -> None:
        error: Exception | None = None
        try:
            awaited = self._writing.send(None)  # type: ignore[union-attr]  # set by `write`
            awaited.add_done_callback(self._step)
            self._awaited = awaited
        except StopIteration:
            pass
        except (asyncio.CancelledError, grpc.aio.BaseError) as failure:
            # Any error of a write means that the caller has left. gRPC also cancels the task of the RPC.
            error = grpc.aio.InternalError(str(failure))
        else:
            return
        self._writing = self._awaited = self.write_began = None
        self._metadata_sent.set()
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
        """Calls `give_up` of writers whose write takes longer than `timeout` seconds. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _CHECKS)
            self._check(timeout)

    def _check(self, timeout: float) -> None:
        # Not inlined into `run`: gRPC keeps an RPC as long as a local variable refers to its context.
        for writer in tuple(self._writers):
            if writer.write_began is not None and awake.seconds_since(writer.write_began) > timeout:
                writer.give_up()

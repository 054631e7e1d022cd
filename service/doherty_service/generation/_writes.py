"""Messages on their way to a caller: written without a task, and watched in case the caller stops reading."""

import asyncio
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty_service.telemetry import awake

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
        self._taken: asyncio.Future[None] | None = None
        """What the write that is under way waits for."""
        self.wants_word = False
        """Whether `written` is to be called after the write that is under way; one that fails always calls it."""
        self.write_began: float | None = None
        """When the message that the transport has not taken yet was handed to it, by `time.monotonic()`."""

    @abstractmethod
    def written(self, error: Exception | None) -> None:
        """Called when the transport has taken a message, if `wants_word` is set, or with an error.

        It must not raise.
        """

    @abstractmethod
    def stall(self) -> None:
        """Called when a message was not taken for too long."""

    def write(self, message: bytes) -> None:
        """Hands a message to the transport; the next one may follow once `write_began` is None again."""
        self.write_began = time.monotonic()
        if self._has_written or len(message) <= _MOST_BUFFERED:
            self._writing = self._context.write(message)
        else:
            self._writing = self._begin_with(message)
        self._has_written = True
        self._step(None)

    def send_metadata(self, metadata: "tuple[tuple[str, str], ...]") -> None:
        """Hands the initial metadata to the transport before there is a message; called once at the most."""
        self.write_began = time.monotonic()
        self._has_written = True
        self._writing = self._context.send_initial_metadata(metadata)
        self._step(None)

    async def _begin_with(self, message: bytes) -> None:
        """Writes a first message that may have to wait for the caller to read.

        grpc.aio sends the initial metadata together with the first message, and until that is taken it would send them
        again with the status: core refuses the second ones, and the caller would never be told a status.
        """
        await self._context.send_initial_metadata(())
        await self._context.write(message)

    def let_go(self) -> None:
        """Waits no longer for a write that is under way: gRPC would keep the RPC as long as somebody does."""
        if self._taken is not None:
            self._taken.cancel()

    def _step(self, _: object) -> None:
        error: Exception | None = None
        try:
            taken = self._writing.send(None)  # type: ignore[union-attr]  # set by `write`
            taken.add_done_callback(self._step)
            self._taken = taken
        except StopIteration:
            pass
        except (asyncio.CancelledError, grpc.aio.BaseError) as broken:
            # Whatever gRPC raises in a write means that the caller is gone; it cancels the task of the RPC, too.
            error = grpc.aio.InternalError(str(broken))
        else:
            return
        self._writing = self._taken = self.write_began = None
        if self.wants_word or error is not None:
            self.wants_word = False
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
        """Watches a writer no longer, which has nothing more to write."""
        self._writers.discard(writer)
        writer.let_go()

    async def run(self, timeout: float) -> None:  # noqa: ASYNC109 - of the callers, not of this
        """Stalls the writers whose message was not taken for `timeout` seconds; runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _LOOKS)
            self._look(timeout)

    def _look(self, timeout: float) -> None:
        # Not in `run`: gRPC keeps an RPC as long as a local variable has its context.
        for writer in tuple(self._writers):
            if writer.write_began is not None and awake.seconds_since(writer.write_began) > timeout:
                writer.stall()

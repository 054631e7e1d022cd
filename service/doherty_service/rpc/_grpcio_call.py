"""Calls on the transport grpcio: grpc.aio's context, and what grpc.aio does not offer."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from doherty_service._batch import BatchFuture, failure_of, give_up
from doherty_service._call import Call, Metadata

Task = asyncio.Task[Any]

_MAX_BUFFERED = 32 << 10
"""A message of this many bytes is always accepted at once: gRPC's core buffers 64 kB per call."""

_METADATA_SECONDS = 1.0
"""How long a cancelled task waits for the initial metadata: they are sent at once if the caller reads its socket."""

_rpcs: "WeakKeyDictionary[Task, Task]" = WeakKeyDictionary()
"""By the task of a handler: the task in which grpc.aio waits for the end of its RPC."""


def note_handler(handler: Task) -> None:
    """Records the task of a handler. Called in the task of its RPC, in which grpc.aio waits for the end of the RPC."""
    rpc = asyncio.current_task()
    if rpc is not None:
        _rpcs[handler] = rpc


class GrpcioCall:
    """A `Call` of grpc.aio. `Call` describes the methods."""

    has_message = False
    """Unknown: grpc.aio asks core for each message when it is read."""
    is_read = False
    """Unknown, too."""
    last_read = 0.0
    """Unknown to grpc.aio."""
    ended_with = None
    """Unknown to grpc.aio, too."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self.left_early = False
        self._context: Any = context
        self._has_begun = False
        """Whether the initial metadata were sent, or are being sent."""
        self._is_beginning = False
        """Whether they are being sent, or the first message is."""
        self._handler: Task | None = None
        self._rpc: Task | None = None
        self._received: asyncio.Future[Any] | None = None
        """Resolved when core has received the message that was read last, or the call has ended."""

    def peer(self) -> str:
        return str(self._context.peer())

    def accept(self) -> None:
        """Does nothing: core treats all connections alike."""

    def time_remaining(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return remaining

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def code(self) -> Any:
        return self._context.code()

    def set_code(self, code: grpc.StatusCode) -> None:
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        self._context.set_details(details)

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._context.set_trailing_metadata(metadata)

    async def read(self) -> Any:
        """Returns the next message.

        grpc.aio frees the memory of a read only when its coroutine continues after the end of the read, so it would
        lose that of reads that are cancelled. Here, the coroutine continues even if nobody waits for the message,
        unless the RPC ends before.
        """
        reading: Coroutine[Any, Any, Any] = self._context.read()
        try:
            received = self._received = reading.send(None)
        except StopIteration as ended:
            return ended.value
        try:
            await _wait(received)
        except asyncio.CancelledError:
            received.add_done_callback(lambda _: _finish(reading))
            raise
        try:
            reading.send(None)
        except StopIteration as ended:
            return ended.value
        raise AssertionError("grpc.aio awaits one future for a message")

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        if not self._has_begun:
            with self._beginning():
                await _run(self._context.send_initial_metadata(metadata), _METADATA_SECONDS)

    def write(self, message: Any) -> Coroutine[Any, Any, None]:
        return _run(self._context.write(message)) if self._has_begun else self._write_first(message)

    def start_write(self, message: Any) -> Coroutine[Any, Any, None]:
        if not self._has_begun:
            return self._write_first(message)
        writing: Coroutine[Any, Any, None] = self._context.write(message)
        return writing

    async def _write_first(self, message: Any) -> None:
        """Sends the first message: with the initial metadata if it is small, so that both are sent at once."""
        with self._beginning():
            if isinstance(message, bytes) and len(message) <= _MAX_BUFFERED:
                await _run(self._context.write(message), _METADATA_SECONDS)
            else:
                await _run(self._context.send_initial_metadata(()), _METADATA_SECONDS)
                await _run(self._context.write(message))

    @contextmanager
    def _beginning(self) -> Iterator[None]:
        self._has_begun = self._is_beginning = True
        try:
            yield
        finally:
            self._is_beginning = False

    def give_up(self, write: "asyncio.Future[Any]") -> bool:
        # Only the initial metadata and the first write await another future than that of a batch.
        return write.cancel() if self._is_beginning else give_up(write)

    def put(self, message: bytes) -> bool:  # noqa: ARG002 - the signature of `Call`
        """Always False: grpc.aio tells only later that core has taken a message."""
        return False

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Coroutine[Any, Any, None]:
        return _run(self._context.abort(code, details, trailing_metadata))

    def follow_end(self, sent: Callable[[Call], None], closed: Callable[[Call], None]) -> None:
        """Follows the task of the handler, which ends when core has taken the status, and that of the RPC."""
        handler = self._handler = asyncio.current_task()
        if handler is None:
            raise AssertionError("gRPC runs each RPC in a task")
        handler.add_done_callback(lambda _: sent(self))
        rpc = self._rpc = _rpcs.get(handler)
        (rpc or handler).add_done_callback(lambda _: self._close(closed))

    def _close(self, closed: Callable[[Call], None]) -> None:
        if self._received is not None:
            self._received.cancel()  # core keeps an RPC as long as something waits for its message
        self._handler = self._rpc = None
        closed(self)

    def follow_reply(self) -> None:
        """Finds out whether the caller leaves before core accepts the reply that the handler is about to return.

        grpc.aio does not report this: the task ends in the same way. But the future that the task awaits fails.
        """
        asyncio.get_running_loop().call_soon(self._follow_sending)

    def _follow_sending(self) -> None:
        sending: asyncio.Future[Any] | None = getattr(self._handler, "_fut_waiter", None)
        if sending is not None:
            sending.add_done_callback(self._check_reply)

    def _check_reply(self, sending: "asyncio.Future[Any]") -> None:
        self.left_early = failure_of(sending) is not None

    def reset(self) -> None:
        """Ends a call whose caller does not read.

        grpc.aio can only send a status, which would wait behind the unread messages. But it resets an RPC once no task
        refers to it any more: neither the task of its handler nor the task that waits for its end, nor a read. The
        handler itself is done, so these tasks await batches: the status, and the end of the RPC.
        """
        for task in (self._handler, self._rpc):
            awaited = getattr(task, "_fut_waiter", None)
            if isinstance(awaited, BatchFuture):
                give_up(awaited)
            elif task is not None:
                task.cancel()
        if self._received is not None:
            self._received.cancel()


def _finish(operation: Coroutine[Any, Any, Any]) -> None:
    """Continues a coroutine of grpc.aio for whose end nobody waits, so that it frees its batch."""
    with suppress(StopIteration, asyncio.CancelledError, grpc.aio.BaseError):
        operation.send(None)


async def _wait(batch: "asyncio.Future[Any]") -> None:
    """Waits for a future, but does not cancel it. `asyncio.wait` would cost twice as much."""
    waiting = batch.get_loop().create_future()

    def end_wait(_: object) -> None:
        if not waiting.done():
            waiting.set_result(None)

    batch.add_done_callback(end_wait)
    await waiting


async def _run(operation: Coroutine[Any, Any, None], patience: float = 0.0) -> None:
    """Runs a coroutine of grpc.aio that awaits one batch. If this is cancelled, it waits for `patience` seconds.

    Initial metadata need patience: if their sending is given up, grpc.aio does not know that they were sent. It sends
    them again with the status, core refuses that, and the caller gets no status.

    The coroutine is driven by hand: in a task it would begin one turn of the loop later.
    """
    try:
        batch: asyncio.Future[Any] = operation.send(None)
    except StopIteration:
        return
    try:
        await _wait(batch)
    except asyncio.CancelledError:
        if patience:
            await asyncio.wait((batch,), timeout=patience)
        give_up(batch)
        _finish(operation)  # now grpc.aio knows
        raise
    if (failure := failure_of(batch)) is not None:
        _finish(operation)
        raise grpc.aio.InternalError(str(failure))  # `failure` would form a cycle with this frame, and keep the RPC
    with suppress(StopIteration):
        operation.send(None)

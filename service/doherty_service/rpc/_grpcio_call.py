"""Calls on the transport grpcio: grpc.aio's context, and what grpc.aio does not offer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from doherty_service._call import Call, Metadata

if TYPE_CHECKING:
    import grpc
    import grpc.aio

Task = asyncio.Task[Any]

_rpcs: "WeakKeyDictionary[Task, Task]" = WeakKeyDictionary()
"""By the task of a handler: the task in which grpc.aio waits for the end of its RPC."""


def note_handler(handler: Task) -> None:
    """Records the task of a handler. Called in the task of its RPC, in which grpc.aio waits for the end of the RPC."""
    rpc = asyncio.current_task()
    if rpc is not None:
        _rpcs[handler] = rpc


class GrpcioCall:
    """A `Call` of grpc.aio."""

    has_message = False
    """Unknown: grpc.aio asks core for each message when it is read."""
    last_read = 0.0
    """Unknown to grpc.aio."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self.left_early = False
        self._context: Any = context
        self._handler: Task | None = None
        self._rpc: Task | None = None

    def peer(self) -> str:
        """See `Call`, also for the other methods."""
        return str(self._context.peer())

    def time_remaining(self) -> float | None:
        """The seconds until the caller's deadline."""
        remaining: float | None = self._context.time_remaining()
        return remaining

    def invocation_metadata(self) -> Any:
        """The caller's metadata."""
        return self._context.invocation_metadata()

    def code(self) -> Any:
        """The code of the status."""
        return self._context.code()

    def set_code(self, code: "grpc.StatusCode") -> None:
        """Sets the code of the status."""
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """Sets the message of the status."""
        self._context.set_details(details)

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Sets what is sent with the status OK."""
        self._context.set_trailing_metadata(metadata)

    def read(self) -> Coroutine[Any, Any, Any]:
        """Returns the next message."""
        reading: Coroutine[Any, Any, Any] = self._context.read()
        return reading

    def send_initial_metadata(self, metadata: Metadata) -> Coroutine[Any, Any, None]:
        """Sends the initial metadata."""
        sending: Coroutine[Any, Any, None] = self._context.send_initial_metadata(metadata)
        return sending

    def write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Sends a message."""
        writing: Coroutine[Any, Any, None] = self._context.write(message)
        return writing

    def put(self, message: bytes) -> bool:  # noqa: ARG002 - the signature of `Call`
        """Always False: grpc.aio tells only later that core has taken a message."""
        return False

    def abort(
        self, code: "grpc.StatusCode", details: str = "", trailing_metadata: Any = ()
    ) -> Coroutine[Any, Any, None]:
        """Ends the call with a status."""
        aborting: Coroutine[Any, Any, None] = self._context.abort(code, details, trailing_metadata)
        return aborting

    def follow_end(self, sent: Callable[[Call], None], closed: Callable[[Call], None]) -> None:
        """Follows the task of the handler, which ends when core has taken the status, and that of the RPC."""
        handler = self._handler = asyncio.current_task()
        if handler is None:
            raise AssertionError("gRPC runs each RPC in a task")
        handler.add_done_callback(lambda _: sent(self))
        rpc = self._rpc = _rpcs.get(handler)
        (rpc or handler).add_done_callback(lambda _: self._close(closed))

    def _close(self, closed: Callable[[Call], None]) -> None:
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
        self.left_early = not sending.cancelled() and sending.exception() is not None

    def reset(self) -> None:
        """Ends a call whose caller does not read.

        grpc.aio can only send a status, which would wait behind the unread messages. But it resets an RPC once no task
        refers to it any more: neither the task of its handler nor the task that waits for its end.
        """
        for task in (self._handler, self._rpc):
            if task is not None:
                task.cancel()

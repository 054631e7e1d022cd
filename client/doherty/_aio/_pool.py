"""The connections of one client on one event loop, and the calls that are spread over them."""

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from doherty._aio._connection import AsyncConnection
from doherty._aio._loop import running_loop, task_is_cancelled
from doherty._core._dispatch import Dispatch
from doherty._core._errors import ClientClosedError, DohertyError, EventLoopError
from doherty._core._log import log_attempt
from doherty._core._resume import shortened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from doherty._core._balance import Target
    from doherty._core._retry import Course
    from doherty._core._settings import Settings

_ReplyT = TypeVar("_ReplyT")


class AsyncPool:
    """Makes calls on one connection for each target, and raises this package's errors for those that fail."""

    def __init__(self, settings: "Settings", *, multiplex: bool) -> None:
        """Belongs to the running event loop. Does not connect yet."""
        self.settings = settings
        self.loop = running_loop()
        self.dispatch = Dispatch(settings)
        self._connections = tuple(AsyncConnection(target, settings, multiplex=multiplex) for target in settings.targets)
        self._pauses: set[asyncio.Event] = set()

    def connection(self, target: "Target") -> AsyncConnection:
        """The connection to a target."""
        return self._connections[target.index]

    def check_loop(self) -> None:
        """Checks that calls can be made here.

        Raises:
            EventLoopError: Another event loop runs, on which they would hang.
            ForkError: The process is not the one that made the client.
        """
        try:
            is_here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            is_here = False  # also in a fork that was made on the loop
        if is_here:
            return
        self.dispatch.check_process()
        running_loop()
        raise EventLoopError(
            "The AsyncClient belongs to the event loop that first used it: make one for each loop, or use Client."
        )

    async def call(
        self,
        rpc: "Callable[[AsyncConnection], Callable[..., Awaitable[_ReplyT]]]",
        request: "Message",
        course: "Course",
    ) -> _ReplyT:
        """Makes a call with one reply, in as many attempts as it takes.

        Raises:
            DohertyError: It failed.
        """
        while True:
            target = self.dispatch.begin(course)
            started = perf_counter()
            try:
                reply = await rpc(self.connection(target))(
                    shortened(request, course),
                    timeout=course.remaining(),
                    metadata=(*self.settings.metadata, *course.metadata),
                )
            except (asyncio.CancelledError, grpc.RpcError, grpc.aio.UsageError) as error:
                log_attempt(request, target.name, started, error)
                if isinstance(error, asyncio.CancelledError) and task_is_cancelled():
                    raise
                pause = self.after(error, target, course)
                if isinstance(pause, DohertyError):
                    raise pause from error
            else:
                log_attempt(request, target.name, started)
                self.dispatch.targets.worked(target)
                course.succeeded()
                return reply
            finally:
                self.dispatch.targets.end(target)
            await self.pause(pause, asyncio.Event())

    def after(
        self, error: BaseException | None, target: "Target", course: "Course", *, begun: bool = False
    ) -> float | DohertyError:
        """Decides what follows an attempt as `Dispatch.after` does.

        Args:
            error: What gRPC raised; None for a stream that ended without a summary.
            target: Where it ran.
            course: The call that it belongs to.
            begun: Whether something of the answer was received.
        """
        from doherty._core._status import CUT_OFF, read_status  # noqa: PLC0415 - only a failed call pays for it

        if self.dispatch.closed:
            # Closing the channel cancels what runs on it, and a call on a closed channel is a UsageError.
            return ClientClosedError("The client was closed.")
        if error is not None and not isinstance(error, grpc.RpcError):
            raise error
        connectivity = self.connection(target).connectivity
        status = CUT_OFF if error is None else read_status(error)
        return self.dispatch.after(status, target, course, begun=begun, connectivity=connectivity)

    async def pause(self, seconds: float, stopped: asyncio.Event) -> None:
        """Waits until the time is over, `stopped` is set or the client is closed."""
        self._pauses.add(stopped)
        try:
            if not self.dispatch.closed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await stopped.wait()
        finally:
            self._pauses.discard(stopped)

    async def close(self) -> None:
        """Cancels what runs and gives the connections up."""
        self.dispatch.closed = True
        for stopped in self._pauses:
            stopped.set()
        for connection in self._connections:
            await connection.close()

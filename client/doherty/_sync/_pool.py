"""The connections of one client, and the calls that are spread over them."""

import threading
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

import grpc

from doherty._core._dispatch import Dispatch
from doherty._core._errors import ClientClosedError, DohertyError
from doherty._core._log import log_attempt
from doherty._core._resume import shortened
from doherty._sync._connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from doherty._core._balance import Target
    from doherty._core._retry import Course
    from doherty._core._settings import Settings

_RequestT = TypeVar("_RequestT", bound="Message")
_ReplyT = TypeVar("_ReplyT")


class Pool:
    """Makes calls on one connection for each target, and raises this package's errors for those that fail."""

    def __init__(self, settings: "Settings") -> None:
        """Does not connect yet."""
        self.settings = settings
        self.dispatch = Dispatch(settings)
        self._connections = tuple(Connection(target, settings) for target in settings.targets)
        self._pauses: set[threading.Event] = set()

    def connection(self, target: "Target") -> Connection:
        """The connection to a target."""
        return self._connections[target.index]

    def call(
        self,
        rpc: "Callable[[Connection], grpc.UnaryUnaryMultiCallable[_RequestT, _ReplyT]]",
        request: _RequestT,
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
                reply = rpc(self.connection(target))(
                    shortened(request, course),
                    timeout=course.remaining(),
                    metadata=(*self.settings.metadata, *course.metadata),
                )
            except (grpc.RpcError, ValueError) as error:
                log_attempt(request, target.name, started, error)
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
            self.pause(pause, threading.Event())

    def after(
        self, error: grpc.RpcError | ValueError | None, target: "Target", course: "Course", *, begun: bool = False
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
            # Closing the channel cancels what runs on it, and a call on a closed channel is a ValueError.
            return ClientClosedError("The client was closed.")
        if isinstance(error, ValueError):
            raise error
        connectivity = self.connection(target).connectivity
        status = CUT_OFF if error is None else read_status(error)
        return self.dispatch.after(status, target, course, begun=begun, connectivity=connectivity)

    def pause(self, seconds: float, stopped: threading.Event) -> None:
        """Waits until the time is over, `stopped` is set or the client is closed."""
        self._pauses.add(stopped)
        try:
            if not self.dispatch.closed:
                stopped.wait(seconds)
        finally:
            self._pauses.discard(stopped)

    def close(self) -> None:
        """Cancels what runs and gives the connections up."""
        self.dispatch.closed = True
        for stopped in tuple(self._pauses):
            stopped.set()
        for connection in self._connections:
            connection.close()

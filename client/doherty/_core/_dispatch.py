"""What the calls of one client share: its targets, its budget, and what is done about an attempt that failed."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

import grpc

from doherty._core._balance import Target, Targets
from doherty._core._errors import ClientClosedError, ForkError, RpcError
from doherty._core._retry import Budget, Course, RetryPolicy
from doherty._core._settings import Settings

if TYPE_CHECKING:
    from doherty._core._status import Status

_LOG: Final = logging.getLogger("doherty")


class Dispatch:
    """Chooses a target for every attempt, and decides what follows one that failed. Threads may share it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.targets = Targets(settings.targets)
        self.closed = False
        """Whether the client was closed."""
        self._budget = Budget((settings.retry or RetryPolicy()).budget)
        self._pid = os.getpid()

    def course(self, timeout: float | None, *, resume: bool = False) -> Course:
        """Begins a call that has `timeout` seconds; `resume` where an answer that is cut off can be gone on with."""
        self.check_usable()
        return Course(self.settings.retry, self._budget, timeout, resume=resume and self.settings.resume)

    def one_attempt(self, timeout: float | None) -> Course:
        """Begins a call that is not made again."""
        return Course(None, self._budget, timeout, resume=False)

    def check_usable(self) -> None:
        """Checks that calls can be made.

        Raises:
            ClientClosedError: The client is closed.
            ForkError: The process is another one.
        """
        if self.closed:
            raise ClientClosedError("The client is closed: make a new one.")
        self.check_process()

    def check_process(self) -> None:
        """Checks that the process is the one that made the client.

        Raises:
            ForkError: It is not.
        """
        if not self.is_of_this_process():
            raise ForkError(
                "The client was made before the process was forked, and its connections did not come along: make a "
                "client in each process."
            )

    def is_of_this_process(self) -> bool:
        """Tells whether the client was made in the running process: in a fork of it, gRPC must be left alone."""
        return os.getpid() == self._pid

    def begin(self, course: Course) -> Target:
        """Chooses the target of a call's next attempt, which counts as running on it until `targets.end`."""
        self.check_usable()
        course.attempts += 1
        target = self.targets.begin()
        course.trace.attempt(target.name, course.attempts)
        return target

    def after(
        self, status: "Status", target: Target, course: Course, *, begun: bool, connectivity: Callable[[], str]
    ) -> float | RpcError:
        """Decides what follows an attempt that failed.

        Args:
            status: How it ended.
            target: Where it ran.
            course: The call that it belongs to.
            begun: Whether something of the answer was received, by this attempt or one before it.
            connectivity: Tells the state of the channel; only asked where it is needed.

        Returns:
            The seconds to wait before the next attempt, or what is to be raised instead of one.
        """
        if status.code is grpc.StatusCode.CANCELLED and course.remaining() == 0:
            # The server keeps the deadline too, and was faster.
            status = replace(status, code=grpc.StatusCode.DEADLINE_EXCEEDED)
        free_in = self.targets.failed(target, status.retry_after) if status.may_pass(begun=begun) else inf
        pause = course.pause(status, begun=begun, free_in=free_in)
        if pause is None:
            return _explain(status, target, course, begun=begun, connectivity=connectivity)
        _LOG.info(
            "%s: %s (%s), attempt %d follows in %.3f s",
            target.name,
            status.code.name,
            status.message,
            course.attempts + 1,
            pause,
        )
        return pause


def _explain(
    status: "Status", target: Target, course: Course, *, begun: bool, connectivity: Callable[[], str]
) -> RpcError:
    """Makes the error to raise for an attempt that is the last one."""
    from doherty._core._translate import translate  # noqa: PLC0415 - only a failed call pays for it

    lost = status.may_pass(begun=begun) and not status.answered
    if lost:
        # Core and proxies have several codes for a connection that broke; it is one thing to the caller.
        status = replace(status, code=grpc.StatusCode.UNAVAILABLE)
    state = connectivity() if lost else "READY"
    return translate(status, target=target.name, connectivity=state, begun=begun, attempts=course.attempts)

"""Ends a wait that takes too long."""

import asyncio
from collections.abc import Callable
from weakref import WeakMethod


class Patience:
    """Calls a method when a wait takes too long.

    A stream waits once for each token, so one timer serves all of its waits: when it goes off too early for the present
    one, it is set again. Only the event loop's thread may use it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lose: Callable[[], None]) -> None:
        """`lose` is a bound method, whose object is not kept alive."""
        self._loop = loop
        self._lose = WeakMethod(lose)
        self._ends_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float | None) -> None:
        """Begins a wait that may take so long; None is without end."""
        if seconds is None:
            return
        self._ends_at = ends_at = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > ends_at:
            self._set(ends_at)

    def end(self) -> None:
        """Ends a wait; the timer stays, for another wait often follows."""
        self._ends_at = None

    def stop(self) -> None:
        """Ends the last wait."""
        self._ends_at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, ends_at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(ends_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._ends_at is None:
            return
        if self._loop.time() < self._ends_at:
            self._set(self._ends_at)
        elif (lose := self._lose()) is not None:
            lose()

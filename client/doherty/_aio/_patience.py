"""Ends a wait that takes too long."""

import asyncio
from collections.abc import Callable
from weakref import WeakMethod


class Patience:
    """Calls a method when a wait takes too long.

    A stream waits for each token, so one timer serves all waits: if it fires too early for the current wait, it is set
    again. Only the event loop's thread may use this.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lose: Callable[[], None]) -> None:
        """`lose` must be a bound method. Only a weak reference to its object is kept."""
        self._loop = loop
        self._lose = WeakMethod(lose)
        self._ends_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, seconds: float | None) -> None:
        """Starts a wait of at most `seconds`; None means no limit."""
        if seconds is None:
            return
        self._ends_at = ends_at = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > ends_at:
            self._set(ends_at)

    def end(self) -> None:
        """Ends a wait. The timer keeps running, because another wait often follows."""
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

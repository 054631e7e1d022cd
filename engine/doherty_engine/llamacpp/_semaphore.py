"""A fair semaphore: shares the KV cache among requests, and lets them compute their prompts one after the other."""

import time
from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, Condition


class FairSemaphore:
    """A semaphore from which each request takes as many units as it needs, in order of arrival."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reserved = 0
        self._changed = Condition()
        self._waiting: deque[object] = deque()

    @property
    def use(self) -> float:
        """The share of units that is reserved, from 0 to 1."""
        return self._reserved / self._size

    def reserve(self, needed: int, *, until: float | None, is_cancelled: Callable[[], bool]) -> bool:
        """Waits until `needed` units are free, and reserves them.

        Args:
            needed: The number of units.
            until: When to stop waiting, by `time.monotonic()`; None for never.
            is_cancelled: Whether to stop waiting; called again after each `wake`.

        Returns:
            False if the time `until` passed first, or the request was cancelled.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._reserved + needed > self._size:
                    left = None if until is None else until - time.monotonic()
                    if is_cancelled() or (left is not None and left <= 0):
                        return False
                    self._changed.wait(None if left is None else min(left, TIMEOUT_MAX))
                self._reserved += needed
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def release(self, needed: int) -> None:
        """Gives units back."""
        with self._changed:
            self._reserved -= needed
            self._changed.notify_all()

    def wake(self) -> None:
        """Makes all waiting requests check whether they were cancelled."""
        with self._changed:
            self._changed.notify_all()

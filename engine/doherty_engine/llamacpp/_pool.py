"""Shares among requests what llama.cpp has only so much of: room in the KV cache, and turns at computing a prompt."""

import time
from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, Condition


class Pool:
    """Lets requests in, first come first served, as long as what they need fits together."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reserved = 0
        self._changed = Condition()
        self._waiting: deque[object] = deque()

    @property
    def use(self) -> float:
        """The share that is reserved."""
        return self._reserved / self._size

    def reserve(self, needed: int, *, until: float | None, given_up: Callable[[], bool]) -> bool:
        """Waits for room; False if `given_up` (`wake` makes it look) or the time `until` came first."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._reserved + needed > self._size:
                    left = None if until is None else until - time.monotonic()
                    if given_up() or (left is not None and left <= 0):
                        return False
                    self._changed.wait(None if left is None else min(left, TIMEOUT_MAX))
                self._reserved += needed
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def release(self, needed: int) -> None:
        """Gives room back."""
        with self._changed:
            self._reserved -= needed
            self._changed.notify_all()

    def wake(self) -> None:
        """Makes those that wait look whether they have been given up."""
        with self._changed:
            self._changed.notify_all()

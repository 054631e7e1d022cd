"""Limits how many lines of one kind are logged."""

import time
from collections.abc import Callable


class LineLimit:
    """A token bucket: allows `burst` lines at once and `per_second` after that, and counts the others."""

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._left = float(burst)
        self._updated = clock()
        self._suppressed = 0

    def allows(self) -> bool:
        """Whether one more line may be written now. Counts the line either way."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._updated) * self._per_second)
        self._updated = now
        if self._left < 1:
            self._suppressed += 1
            return False
        self._left -= 1
        return True

    def take_suppressed(self) -> int:
        """Returns the number of lines that were not allowed since the last call."""
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed

"""A bound on how many lines of one kind the log gets."""

import time
from collections.abc import Callable


class LineLimit:
    """Lets so many lines through at once, and so many a second after that; counts the others."""

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` tells seconds."""
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._left = float(burst)
        self._looked = clock()
        self._suppressed = 0

    def allows(self) -> bool:
        """Whether one more line may be written now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._looked) * self._per_second)
        self._looked = now
        if self._left < 1:
            self._suppressed += 1
            return False
        self._left -= 1
        return True

    def take_suppressed(self) -> int:
        """How many lines were not let through since this was last asked."""
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed

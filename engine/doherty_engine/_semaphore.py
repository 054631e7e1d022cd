"""A fair semaphore: shares what only few requests can use at the same time among API keys."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from threading import TIMEOUT_MAX, Condition

_REMEMBERED_KEYS = 1_000
"""Keys whose last turn is remembered. Others count as if they had never had one."""

_SECONDS_PER_TOKEN = 0.01
"""A request may be overtaken by those of its own key that come within this time for each token of its prompt. So a long
prompt does not hold a short one back, and no number of short ones holds a long one back forever."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A request that wants units of a semaphore."""

    key: str
    """Units are shared among keys; the server has a cache salt for each API key (`EngineRequest.cache_salt`)."""
    arrived: float
    """When the request came, by `time.monotonic()`."""
    prompt_tokens: int

    @property
    def rank(self) -> float:
        """Within a key, lower ranks go first."""
        return self.arrived + _SECONDS_PER_TOKEN * self.prompt_tokens


class FairSemaphore:
    """A semaphore from which each request takes as many units as it needs.

    The next units go to the key that holds the fewest; if several hold equally many, to the one that last got some the
    longest time ago; and within a key, to the request of the lowest rank. No other request can overtake this one.
    """

    def __init__(self, size: int, *, per_key: int | None = None) -> None:
        """`size` is the number of units, of which a key gets at most `per_key` at a time."""
        self._size = size
        self._per_key = size if per_key is None else per_key
        self._reserved = 0
        self._held: Counter[str] = Counter()
        """The reserved units of each key that has some."""
        self._served: OrderedDict[str, int] = OrderedDict()
        """For each key, when it last got units: the number of that reservation, counted over all keys."""
        self._reservations = count(1)
        self._changed = Condition()
        self._waiting: list[Claim] = []

    @property
    def use(self) -> float:
        """The share of units that is reserved, from 0 to 1."""
        return self._reserved / self._size

    def reserve(self, needed: int, request: Claim, *, until: float | None, is_cancelled: Callable[[], bool]) -> bool:
        """Waits until `needed` units are free and it is this request's turn, and reserves them.

        Args:
            needed: The number of units.
            request: Who wants them.
            until: When to stop waiting, by `time.monotonic()`; None for never.
            is_cancelled: Whether to stop waiting; called again after each `wake`.

        Returns:
            False if the time `until` passed first, or the request was cancelled.
        """
        with self._changed:
            self._waiting.append(request)
            try:
                while self._first() is not request or not self._has_room(needed, request.key):
                    left = None if until is None else until - time.monotonic()
                    if is_cancelled() or (left is not None and left <= 0):
                        return False
                    self._changed.wait(None if left is None else min(left, TIMEOUT_MAX))
                self._take(needed, request.key)
                return True
            finally:
                self._waiting.remove(request)
                self._changed.notify_all()

    def release(self, needed: int, request: Claim) -> None:
        """Gives units back."""
        with self._changed:
            self._reserved -= needed
            self._held[request.key] -= needed
            if not self._held[request.key]:
                del self._held[request.key]
            self._changed.notify_all()

    def wake(self) -> None:
        """Makes all waiting requests check whether they were cancelled."""
        with self._changed:
            self._changed.notify_all()

    def _has_room(self, needed: int, key: str) -> bool:
        return self._reserved + needed <= self._size and self._held[key] + needed <= self._per_key

    def _first(self) -> Claim:
        """The waiting request that gets the next units."""
        return min(self._waiting, key=lambda one: (self._held[one.key], self._served.get(one.key, 0), one.rank))

    def _take(self, needed: int, key: str) -> None:
        self._reserved += needed
        self._held[key] += needed
        self._served[key] = next(self._reservations)
        self._served.move_to_end(key)
        if len(self._served) > _REMEMBERED_KEYS:
            self._served.popitem(last=False)

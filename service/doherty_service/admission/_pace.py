"""How long the last answers took: what every estimate of a wait is made from."""

import heapq
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

_RECENT_SECONDS = 300.0
_MOST_SAMPLES = 200
_FIRST_GUESS_SECONDS = 1.0
"""How long an answer holds its slot, while none has ended yet."""


@dataclass(frozen=True, slots=True)
class _Sample:
    ended: float
    first_token: float | None
    held: float


class Pace:
    """How long complete answers held their slots of late, in seconds; it outlives the engine that made them."""

    def __init__(self) -> None:
        """Nothing is known at first."""
        self._samples: deque[_Sample] = deque(maxlen=_MOST_SAMPLES)

    def note(self, held: float, first_token: float | None) -> None:
        """Takes in an answer that is complete: how long it held its slot, and had it when its first token came."""
        self._samples.append(_Sample(time.monotonic(), first_token, held))

    @property
    def count(self) -> int:
        """How many recent answers are known."""
        return len(self._recent())

    def first_token(self) -> float:
        """The median time from the slot to the first token."""
        known = (one.first_token for one in self._recent() if one.first_token is not None)
        return _quantile(known, 0.5, 0.0)

    def held(self, share: float = 0.5) -> float:
        """The time within which `share` of the answers gave their slots back."""
        return _quantile((one.held for one in self._recent()), share, _FIRST_GUESS_SECONDS)

    def _recent(self) -> "deque[_Sample]":
        oldest = time.monotonic() - _RECENT_SECONDS
        while self._samples and self._samples[0].ended < oldest:
            self._samples.popleft()
        return self._samples

    def departure(self, rank: int, began: Iterable[float], slots: int, share: float = 0.5) -> float:
        """In how many seconds the `rank`-th answer from now on ends, if those behind take the slots over at once.

        Args:
            rank: Counts from 1.
            began: When each request that runs got its slot, by `time.monotonic()`.
            slots: How many there are.
            share: How sure to be: of the recent answers, so many were quicker than what is assumed of each.
        """
        held, now = self.held(share), time.monotonic()
        ends = [max(one + held - now, 0.0) for one in began]
        ends += [held] * (slots - len(ends))
        # After all slots have been given back once, the pattern repeats.
        rounds, place = divmod(rank - 1, slots)
        return rounds * held + heapq.nsmallest(place + 1, ends)[-1]


def _quantile(values: Iterable[float], share: float, otherwise: float) -> float:
    known = sorted(values)
    return known[math.ceil(share * len(known)) - 1] if known else otherwise

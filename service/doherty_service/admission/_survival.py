"""An estimate of how long things last, from some that have ended and some that were cut off."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection
from itertools import groupby
from typing import NamedTuple


class Sample(NamedTuple):
    """How far one of them got."""

    value: float
    """Above 0."""
    ended: bool
    """Whether it ended there by itself; else it was cut off, or still goes on, and `value` is a lower bound."""
    entered: float = 0.0
    """How far it had come when it began to be looked at; below `value` if it ended by itself."""
    weight: float = 1.0


class SurvivalCurve:
    """The share that gets further than any value: the estimate of Kaplan and Meier.

    At each value at which some ended, the share that is left falls by those that ended, as a part of all that were
    looked at there:  left(x) = product over ends e <= x of (1 - ended(e) / reached(e)).  What was cut off counts among
    those that got so far, and no more behind that. So answers that are cut off again and again make the estimate
    longer; to look only at complete ones would make it shorter. Beyond the last end nothing is known: what is left then
    is taken to end when it is twice as far as the furthest.

    Source: E. L. Kaplan and P. Meier, "Nonparametric Estimation from Incomplete Observations", 1958. `entered` is their
    "late entry": that those which were under way when one began to look had got so far must not count, because those
    that had not are unknown.
    """

    def __init__(self, samples: Collection[Sample]) -> None:
        """Takes O(n log n) for n samples, one at least; each question afterwards O(log n)."""
        ordered = sorted(samples)
        entries = deque(sorted((sample.entered, sample.weight) for sample in samples))
        self._values = [0.0]
        self._gone = [0.0]
        """The share that has ended by each of `_values`, in ascending order."""
        self._areas = [0.0]
        """The area below the curve, up to each of `_values`."""
        left, reached = 1.0, 0.0
        for value, same in groupby(ordered, key=lambda sample: sample.value):
            while entries and entries[0][0] < value:
                reached += entries.popleft()[1]
            here = list(same)
            ended = sum(sample.weight for sample in here if sample.ended)
            if ended:
                self._areas.append(self._areas[-1] + left * (value - self._values[-1]))
                left *= max(0.0, 1 - ended / reached)
                self._values.append(value)
                self._gone.append(1 - left)
            reached -= sum(sample.weight for sample in here if sample.entered < value)
        furthest = 2 * ordered[-1].value
        self._areas.append(self._areas[-1] + left * (furthest - self._values[-1]))
        self._values.append(furthest)
        self._gone.append(1.0)

    def share_within(self, value: float) -> float:
        """The share that ends by `value`."""
        return self._gone[bisect_right(self._values, value) - 1] if value >= 0 else 0.0

    def mean(self, most: float) -> float:
        """The mean, where what gets as far as `most` ends there."""
        index = bisect_right(self._values, most) - 1
        return self._areas[index] + (1 - self._gone[index]) * (most - self._values[index])

    def quantile(self, share: float, beyond: float = 0.0) -> float:
        """By what value `share` of those have ended that get further than `beyond`."""
        gone = self.share_within(beyond)
        index = bisect_left(self._gone, gone + share * (1 - gone) - 1e-9)
        return max(self._values[index], beyond)

"""An estimate of how long things last, from some that have ended and some that were cut off."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple


class Sample(NamedTuple):
    """How long something lasted."""

    value: float
    """Above 0."""
    ended: bool
    """Whether it ended there by itself. If not, it was cut off or still goes on, and `value` is a lower bound."""
    weight: float = 1.0


class SurvivalCurve:
    """The share that lasts longer than a value: the estimate of Kaplan and Meier.

    At each value at which samples ended, the share that is left falls by those that ended, as a part of those that
    lasted so long:  left(x) = product over ends e <= x of (1 - ended(e) / reached(e)).  A sample that was cut off
    counts among those that lasted so long, up to where it was cut off. So answers that are cut off again and again make
    the estimate longer, while complete answers alone would make it shorter. Beyond the longest sample nothing is known:
    what is left there is assumed to end at twice that value.

    Source: E. L. Kaplan and P. Meier, "Nonparametric Estimation from Incomplete Observations", 1958.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        """Takes O(n log n) for n samples, at least one; each question afterwards O(log n)."""
        ordered = sorted(samples)
        self._values = [0.0]
        self._ended = [0.0]
        """The share that has ended by each of `_values`."""
        self._areas = [0.0]
        """The area below the curve, up to each of `_values`."""
        left, reached = 1.0, sum(sample.weight for sample in ordered)
        for value, group in groupby(ordered, key=attrgetter("value")):
            same = list(group)
            ended = sum(sample.weight for sample in same if sample.ended)
            if ended:
                self._add(value, left)
                left *= max(0.0, 1 - ended / reached)
                self._ended.append(1 - left)
            reached -= sum(sample.weight for sample in same)
        self._add(2 * ordered[-1].value, left)
        self._ended.append(1.0)

    def _add(self, value: float, left: float) -> None:
        self._areas.append(self._areas[-1] + left * (value - self._values[-1]))
        self._values.append(value)

    def share_within(self, value: float) -> float:
        """The share that ends by `value`."""
        return self._ended[bisect_right(self._values, value) - 1] if value >= 0 else 0.0

    def mean(self, most: float) -> float:
        """The mean, if what lasts as long as `most` ends there."""
        index = bisect_right(self._values, most) - 1
        return self._areas[index] + (1 - self._ended[index]) * (most - self._values[index])

    def quantile(self, share: float, beyond: float = 0.0) -> float:
        """The value by which `share` of those have ended that last longer than `beyond`."""
        ended = self.share_within(beyond)
        index = bisect_left(self._ended, ended + share * (1 - ended) - 1e-9)
        return max(self._values[index], beyond)

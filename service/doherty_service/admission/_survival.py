"""Estimates a distribution of durations or lengths from complete and cut-off samples."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import NamedTuple


class Sample(NamedTuple):
    """A measured duration or length."""

    value: float
    """Above 0."""
    ended: bool
    """Whether the sample is complete. If not, it was cut off or still continues, and `value` is a lower bound."""
    weight: float = 1.0


class SurvivalCurve:
    """The share of samples that exceed a value: the Kaplan-Meier estimator.

    left(x) = product over the values e <= x at which samples ended of (1 - ended(e) / reached(e)), where ended(e) is
    the number of samples that ended at e, and reached(e) the number of samples that are at least e. A cut-off sample
    counts in reached(e) up to where it was cut off. So cut-off answers make the estimate longer; an average of the
    complete ones alone would be too short. Beyond the largest sample nothing is known: the rest is assumed to end at
    twice its value.

    Source: E. L. Kaplan and P. Meier, "Nonparametric Estimation from Incomplete Observations", 1958.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        """Takes O(n log n) for n samples (at least one); each method takes O(log n)."""
        ended: dict[float, float] = {}
        """The weight of the samples that ended at a value."""
        cut_off: dict[float, float] = {}
        """The weight of the samples that were cut off at a value."""
        for value, has_ended, weight in samples:
            weights = ended if has_ended else cut_off
            weights[value] = weights.get(value, 0.0) + weight
        left, reached = 1.0, sum(ended.values()) + sum(cut_off.values())
        self._values = [0.0]
        self._ended = [0.0]
        """For each of `_values`: the share of samples that have ended there."""
        self._areas = [0.0]
        """For each of `_values`: the area below the curve up to it."""
        values = sorted(ended.keys() | cut_off.keys())
        for value in values:
            if value in ended:
                self._add(value, left)
                left *= max(0.0, 1 - ended[value] / reached)
                self._ended.append(1 - left)
            reached -= ended.get(value, 0.0) + cut_off.get(value, 0.0)
        self._add(2 * values[-1], left)
        self._ended.append(1.0)

    def _add(self, value: float, left: float) -> None:
        self._areas.append(self._areas[-1] + left * (value - self._values[-1]))
        self._values.append(value)

    def share_within(self, value: float) -> float:
        """The share of samples that end at or before `value`."""
        return self._ended[bisect_right(self._values, value) - 1] if value >= 0 else 0.0

    def mean(self, limit: float) -> float:
        """The mean, if everything longer than `limit` is cut off there."""
        index = bisect_right(self._values, limit) - 1
        return self._areas[index] + (1 - self._ended[index]) * (limit - self._values[index])

    def quantile(self, share: float, beyond: float = 0.0) -> float:
        """The quantile `share` of the samples that exceed `beyond`."""
        ended = self.share_within(beyond)
        index = bisect_left(self._ended, ended + share * (1 - ended) - 1e-9)
        return max(self._values[index], beyond)

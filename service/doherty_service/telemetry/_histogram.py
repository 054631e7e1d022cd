"""Histograms of durations, with buckets as in Prometheus."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

# fmt: off
BOUNDS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0,
    15.0, 20.0, 30.0, 60.0, 120.0, 300.0,
)
# fmt: on
"""The inclusive upper bounds of the buckets, in seconds. One of them is the Doherty threshold, 0.4."""


class Histogram:
    """Counts values by bucket. The last bucket has no upper bound."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def observe(self, value: float) -> None:
        """Adds one value, in seconds."""
        self._counts[bisect_left(BOUNDS, value)] += 1
        self.sum += value

    def observe_each(self, values: Sequence[float]) -> None:
        """Adds many values, which must be in ascending order."""
        at = 0
        while at < len(values):
            bucket = bisect_left(BOUNDS, values[at])
            end = bisect_right(values, BOUNDS[bucket], at) if bucket < len(BOUNDS) else len(values)
            self._counts[bucket] += end - at
            at = end
        self.sum += sum(values)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Yields each upper bound, the last of which is infinite, with the number of values up to it."""
        total = 0
        for bound, count in zip((*BOUNDS, float("inf")), tuple(self._counts), strict=True):
            total += count
            yield bound, total

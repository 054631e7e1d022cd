"""Ratios of two servers, pair by pair of windows that followed each other, and how sure they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and an interval that holds the true one with a probability of at least 95 %.

    The interval is that of order statistics: it asks nothing of the distribution, and a window that was disturbed
    moves it little. With fewer than six pairs there is none, and the bounds are infinite.
    """

    median: float
    low: float
    high: float


def ratio(own: Sequence[float], others: Sequence[float]) -> Ratio:
    """Compares round by round, where both have the figure: a window may have no sample of a latency."""
    return interval([one / other for one, other in zip(own, others, strict=True)])


def interval(values: Sequence[float]) -> Ratio:
    """The median of values, and where it lies."""
    ordered = sorted(value for value in values if not math.isnan(value))
    count = len(ordered)
    if not count:
        return Ratio(math.nan, -math.inf, math.inf)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    rank = _rank(count)
    if rank < 0:
        return Ratio(middle, -math.inf, math.inf)
    return Ratio(middle, ordered[rank], ordered[count - 1 - rank])


def _rank(count: int) -> int:
    """How many values on either side lie outside of the interval; -1 where there are too few values for one.

    The median lies below the value of rank r (from 0) when at most r of the values are below it: a binomial tail.
    """
    outside = (1 - CONFIDENCE) / 2
    tail, rank = 0.0, -1
    for below in range(count):
        tail += math.comb(count, below) / 2**count
        if tail > outside:
            break
        rank = below
    return rank

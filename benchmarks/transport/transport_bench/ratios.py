"""Computes ratios of two servers from pairs of consecutive windows, with confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and an interval that contains the true median with a probability of at least 95 %.

    The interval lies between two order statistics. It assumes no distribution, and single disturbed windows hardly
    change it. With fewer than six pairs, there is no such interval, and the bounds are infinite.
    """

    median: float
    low: float
    high: float


def ratio(own: Sequence[float], others: Sequence[float]) -> Ratio:
    """Compares two servers round by round, in rounds for which both have the figure."""
    return interval([value / other for value, other in zip(own, others, strict=True)])


def interval(values: Sequence[float]) -> Ratio:
    """Returns the median of values, and its interval."""
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
    """Returns how many values on either side are outside of the interval; -1 if there are too few values.

    The median is below the value of rank r (counted from 0) if at most r values are below it: a binomial tail.
    """
    outside = (1 - CONFIDENCE) / 2
    tail, rank = 0.0, -1
    for below in range(count):
        tail += math.comb(count, below) / 2**count
        if tail > outside:
            break
        rank = below
    return rank

"""Statistics of many measurements."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from doherty import Quantiles

_RESAMPLES: Final = 1000
_CONFIDENCE: Final = 0.95


def percentile(values: Iterable[float], share: float) -> float | None:
    """Returns the percentile by nearest rank, like the server: of ten values, p50 is the 5th and p90 the 9th."""
    ranked = sorted(values)
    return _at_rank(ranked, share) if ranked else None


def quantiles(values: Iterable[float | None]) -> Quantiles:
    """Returns the three quantiles of the known values."""
    ranked = sorted(value for value in values if value is not None)
    if not ranked:
        return Quantiles(None, None, None)
    return Quantiles(*(_at_rank(ranked, share) for share in (0.5, 0.9, 0.99)))


def mean(values: Sequence[float]) -> float | None:
    """Returns the mean; None if there are no values."""
    return math.fsum(values) / len(values) if values else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of a figure of B to that of A, with its 95 % interval."""

    ratio: float
    low: float | None
    """None if there are too few blocks for an interval."""
    high: float | None


Pair = tuple[float, float]
"""The times of one request at A and at B."""


def ratio_of_medians(blocks: Sequence[Sequence[Pair]], seed: int) -> Ratio | None:
    """Returns the median of B divided by the median of A, with a bootstrap interval.

    The bootstrap draws whole blocks, because the requests of a block ran at the same time and depend on each other.
    Pairs stay together, because both requests of a pair have the same prompt.

    Args:
        blocks: The pairs of each block.
        seed: Makes the draws repeatable.

    Returns:
        None if there are no pairs, or if the median of A is zero.
    """
    ratio = _ratio(blocks)
    if ratio is None:
        return None
    if len(blocks) == 1:
        return Ratio(ratio, None, None)
    random = Random(seed)  # noqa: S311 - no secret depends on it
    drawn = (_ratio(random.choices(blocks, k=len(blocks))) for _ in range(_RESAMPLES))
    ratios = sorted(ratio for ratio in drawn if ratio is not None)
    tail = (1 - _CONFIDENCE) / 2
    return Ratio(ratio, _at_rank(ratios, tail), _at_rank(ratios, 1 - tail))


def _ratio(blocks: Iterable[Sequence[Pair]]) -> float | None:
    pairs = [pair for block in blocks for pair in block]
    a, b = (percentile((pair[side] for pair in pairs), 0.5) for side in (0, 1))
    return None if b is None or not a else b / a


def _at_rank(ranked: Sequence[float], share: float) -> float:
    return ranked[math.ceil(share * len(ranked)) - 1]

"""What several benchmarks share."""

import os
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path


def python_path(checkout: Path) -> str:
    """The PYTHONPATH with which a program runs the code of a checkout."""
    return os.pathsep.join(str(checkout / package) for package in ("client", "engine", "service"))


def longest_gap(arrivals: Iterable[float], begin: float, end: float) -> tuple[float, float]:
    """Begin and end of the longest time without an arrival within a span of time."""
    times = [begin, *(arrival for arrival in arrivals if begin < arrival < end), end]
    return max(pairwise(times), key=lambda gap: gap[1] - gap[0])

"""Restores the decimals that callers wrote from the floats of the wire."""

import math
from ctypes import c_float

_ENOUGH_DIGITS = 9
"""Significant digits that distinguish any two 32-bit floats."""


def shortest_decimal(value: float) -> float:
    """Returns the shortest decimal that rounds to a 32-bit float: 0.9 for 0.89999998."""
    if not math.isfinite(value):
        return value
    decimals = (float(f"{value:.{digits}g}") for digits in range(6, _ENOUGH_DIGITS + 1))
    return next((decimal for decimal in decimals if c_float(decimal).value == value), value)

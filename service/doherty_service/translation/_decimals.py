"""Numbers of the wire as their senders wrote them."""

import math
from ctypes import c_float

_ENOUGH_DIGITS = 9
"""So many tell any two floats of 32 bits apart."""


def shortest_decimal(value: float) -> float:
    """The shortest decimal that a float of 32 bits stands for: 0.9, where its exact value is 0.89999998."""
    if not math.isfinite(value):
        return value
    decimals = (float(f"{value:.{digits}g}") for digits in range(6, _ENOUGH_DIGITS + 1))
    return next((decimal for decimal in decimals if c_float(decimal).value == value), value)

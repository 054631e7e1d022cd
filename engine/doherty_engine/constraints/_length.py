"""Limits the length of numbers and formatted strings for which the schema has no limit.

A small model that has started a fraction may repeat its last digit until the answer is cut off. The limits exclude no
realistic value: 64-bit integers, fractions down to billionths, times in microseconds, and the lengths in the RFCs.
"""

from collections.abc import Mapping
from typing import Final

from doherty_engine.constraints._schema_values import Json

LENGTHS: Final[Mapping[str, int]] = {
    "time": len("23:59:59.999999+23:59"),
    "date-time": len("9999-12-31T23:59:59.999999+23:59"),
    "duration": 32,
    "email": 254,  # RFC 5321, errata 1690
    "hostname": 253,  # RFC 1035, 2.3.4
}
"""Maximum number of characters of a string, by its format."""

_MAX_WHOLE: Final = 2**63 - 1024
"""The largest double below 2^63, because llguidance reads bounds as doubles."""
_MOST: Final = 10**18
_STEP: Final = 1e-9
"""The smallest `multipleOf` that llguidance supports."""
_COARSE: Final = 1e-6
"""If bounds are nearer to 0 or to each other than this, there are too few multiples of the step between them."""


def bound_length(written: dict[str, Json]) -> dict[str, Json]:
    """Adds bounds to the rewritten schema of a number; returns all other schemas unchanged.

    A number without any bound gets none, because it may have an exponent, and llguidance allows no exponents in numbers
    with bounds.
    """
    if written.keys() & {"const", "enum"}:
        return written
    kind = written.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if "integer" in kinds and "number" not in kinds:
        return {
            **written,
            "minimum": written.get("minimum", -_MAX_WHOLE),
            "maximum": written.get("maximum", _MAX_WHOLE),
        }
    lows, highs = _values(written, "minimum", "exclusiveMinimum"), _values(written, "maximum", "exclusiveMaximum")
    if "number" not in kinds or not (lows or highs):
        return written
    bounded = dict(written)
    if not lows:
        bounded["minimum"] = -_MOST
    if not highs:
        bounded["maximum"] = _MOST
    is_coarse = all(value == 0 or abs(value) >= _COARSE for value in (*lows, *highs))
    if is_coarse and (not lows or not highs or min(highs) - max(lows) >= _COARSE):
        bounded.setdefault("multipleOf", _STEP)
    return bounded


def _values(written: dict[str, Json], *keywords: str) -> list[int | float]:
    return [value for keyword in keywords if isinstance(value := written.get(keyword), int | float)]

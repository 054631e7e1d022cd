"""Sets of characters, as ranges of code points."""

from collections.abc import Iterable

LAST = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of code points, sorted and without overlaps."""


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorts ranges, and joins those that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(ranges: Ranges) -> Ranges:
    """All other code points except surrogates."""
    rest: list[tuple[int, int]] = []
    start = 0
    for first, last in merge((*ranges, (SURROGATES.start, SURROGATES.stop - 1))):
        if first > start:
            rest.append((start, first - 1))
        start = last + 1
    return (*rest, (start, LAST)) if start <= LAST else tuple(rest)


def points(characters: str) -> Ranges:
    """The set of the characters of a text."""
    return merge((ord(character), ord(character)) for character in characters)


def intersection(left: Ranges, right: Ranges) -> Ranges:
    """The code points that are in both sets."""
    return merge((max(a, c), min(b, d)) for a, b in left for c, d in right if max(a, c) <= min(b, d))


_DIGITS = merge([(0x30, 0x39)])
_WORD = merge([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
_SPACE = points(" \t\n\v\f\r")
CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
CLASSES |= {name.upper(): complement(ranges) for name, ranges in CLASSES.items()}
ANY = complement(())
NO_LINE_BREAK = complement(points("\n\r"))

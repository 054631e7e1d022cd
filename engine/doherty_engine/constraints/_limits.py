"""Limits the size and number of constraints."""

from doherty_engine._errors import InvalidInputError

TRANSLATIONS = 2
"""How many constraints an engine translates at the same time, one per key. More would not be faster together, because
Python runs one thread at a time, and each thread makes the event loop wait longer."""
_MAX_CHARACTERS = 32_768


def check_size(field: str, text: str) -> None:
    """Refuses a constraint that would take too long to parse.

    Raises:
        InvalidInputError: It has too many characters.
    """
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"it has {len(text)} characters; the maximum is {_MAX_CHARACTERS}")

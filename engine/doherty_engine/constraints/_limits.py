"""Limits the size of a constraint."""

from doherty_engine._errors import InvalidInputError

_MAX_CHARACTERS = 32_768


def check_size(field: str, text: str) -> None:
    """Refuses a constraint that would take too long to parse.

    Raises:
        InvalidInputError: It has too many characters.
    """
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"it has {len(text)} characters; the maximum is {_MAX_CHARACTERS}")

"""How large a constraint may be."""

from doherty_engine._errors import InvalidInputError

_MAX_CHARACTERS = 32_768


def check_size(field: str, text: str) -> None:
    """Refuses a constraint that only reading it would take long.

    Raises:
        InvalidInputError: it is that long.
    """
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInputError(field, f"it has {len(text)} characters, and at most {_MAX_CHARACTERS} are taken")

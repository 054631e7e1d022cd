"""What a JSON Schema is made of: its JSON, its numbers, its references, and the errors that name a keyword."""

import json
from decimal import Decimal, InvalidOperation
from typing import NoReturn, TypeAlias
from urllib.parse import unquote

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine.constraints._limits import check_size

FIELD = "constraint.json_schema"
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | Decimal | float | bool | None"
"""A number with a point or an exponent is a Decimal where it was read, and a float where it is written."""

_MOST_DIGITS = 400
_LARGEST_BOUND = 2**53
_HUGE = Decimal("1e999999")
_LARGEST_COUNT = 1_000_000


def parse_schema(text: str) -> Json:
    """The JSON of a schema, each number as exact as it was written.

    Raises:
        InvalidInputError: it is too long, no JSON, or no schema.
    """
    check_size(FIELD, text)
    try:
        value: Json = json.loads(text, parse_int=_whole, parse_float=_fraction, parse_constant=_no_number)
    except RecursionError:
        raise InvalidInputError(FIELD, "it is nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(FIELD, f"it is not JSON: {error}") from error
    if not isinstance(value, dict | bool):
        raise InvalidInputError(FIELD, "a JSON Schema is an object, true or false")
    return value


def _whole(digits: str) -> int:
    # Python refuses to read very long ones; all that matters of them is that they are too large.
    return int(digits[:_MOST_DIGITS])


def _fraction(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent of so many digits that it is refused wherever it matters
        return _HUGE


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def invalid(keyword: str, path: str, reason: str) -> InvalidInputError:
    """The error of a schema that is wrong."""
    return InvalidInputError(FIELD, f"{keyword!r} at {path}: {reason}")


def unsupported(keyword: str, path: str, reason: str) -> UnsupportedError:
    """The error of a schema that is right, and that an engine cannot bind."""
    return UnsupportedError(FIELD, f"{keyword!r} at {path}: {reason}")


def exact(value: Json, keyword: str, path: str, *, as_float: str = "r") -> Json:
    """A value that is to come back as it is.

    Args:
        value: The value.
        keyword: Where it stands.
        path: Where that stands.
        as_float: How the library writes a float: `r` as short as it can, `.17g` with 17 digits.

    Raises:
        UnsupportedError: it has a number that a float does not hold.
    """
    match value:
        case bool() | None | str():
            return value
        case list():
            return [exact(item, keyword, path, as_float=as_float) for item in value]
        case dict():
            return {name: exact(item, keyword, path, as_float=as_float) for name, item in value.items()}
        case int() | Decimal():
            number = _float(value)
            written = repr(number) if as_float == "r" else format(number, as_float)
            if Decimal(written) != value:
                raise unsupported(keyword, path, f"this engine cannot hold the number {str(value)[:40]} exactly")
            return value if isinstance(value, int) else number
        case _:
            raise AssertionError("a number is not read as a float")


def bound(schema: dict[str, Json], keyword: str, path: str) -> int | Decimal | None:
    """A bound of a number.

    Raises:
        InvalidInputError: it is no number.
        UnsupportedError: arithmetic with it would not be exact.
    """
    if keyword not in schema:
        return None
    value = schema[keyword]
    if isinstance(value, bool):
        raise unsupported(keyword, path, "true and false are of an old draft; give the bound itself")
    if not isinstance(value, int | Decimal):
        raise invalid(keyword, path, "it must be a number")
    if not -_LARGEST_BOUND <= value <= _LARGEST_BOUND:
        raise unsupported(keyword, path, "beyond 2^53 this engine's arithmetic is not exact")
    exact(value, keyword, path)
    return value


def count(schema: dict[str, Json], keyword: str, path: str) -> int | None:
    """A number of things.

    Raises:
        InvalidInputError: it is no whole number, or below 0.
        UnsupportedError: it is too large.
    """
    if keyword not in schema:
        return None
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise invalid(keyword, path, "it must be a whole number, 0 or above")
    if value > _LARGEST_COUNT:
        raise unsupported(keyword, path, f"this engine counts to {_LARGEST_COUNT}")
    if value < 0 or value != int(value):
        raise invalid(keyword, path, "it must be a whole number, 0 or above")
    return int(value)


def resolve(root: Json, reference: Json, path: str) -> Json:
    """What a reference inside the schema refers to.

    Raises:
        InvalidInputError: there is nothing.
        UnsupportedError: it leads out of the schema.
    """
    if not isinstance(reference, str):
        raise invalid("$ref", path, "it must be a text")
    if reference != "#" and not reference.startswith("#/"):
        raise unsupported("$ref", path, f"this engine does not follow {reference[:80]!r}")
    target = root
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and name in target:
            target = target[name]
        elif isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
            target = target[int(name[:9])]
        else:
            raise invalid("$ref", path, f"there is nothing at {reference[:80]!r}")
    return target


def _float(value: int | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")

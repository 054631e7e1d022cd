"""Reads the values in a JSON Schema: its JSON, numbers and references; and creates errors that name a keyword."""

import json
from decimal import Decimal, InvalidOperation
from typing import NoReturn, TypeAlias
from urllib.parse import unquote

from doherty_engine._errors import InvalidInputError, UnsupportedError
from doherty_engine.constraints._limits import check_size

FIELD = "constraint.json_schema"
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | Decimal | float | bool | None"
"""A number with a decimal point or an exponent is a Decimal after parsing, and a float before writing."""

_MAX_DIGITS = 400
_MAX_BOUND = 2**53
_HUGE = Decimal("1e999999")
_MAX_COUNT = 1_000_000


def parse_schema(text: str) -> Json:
    """Parses the JSON of a schema without losing the precision of numbers.

    Raises:
        InvalidInputError: It is too long, not JSON, or not a schema.
    """
    check_size(FIELD, text)
    try:
        value: Json = json.loads(text, parse_int=_integer, parse_float=_decimal, parse_constant=_refuse_constant)
    except RecursionError:
        raise InvalidInputError(FIELD, "it is nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(FIELD, f"it is not JSON: {error}") from error
    if not isinstance(value, dict | bool):
        raise InvalidInputError(FIELD, "a JSON Schema is an object, true or false")
    return value


def _integer(digits: str) -> int:
    # Python refuses to convert very long ones. Their first digits suffice, because they are too large anyway.
    return int(digits[:_MAX_DIGITS])


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # the exponent is too long; such a number is refused wherever it matters
        return _HUGE


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def invalid(keyword: str, path: str, reason: str) -> InvalidInputError:
    """Creates the error for an invalid schema."""
    return InvalidInputError(FIELD, f"{keyword!r} at {path}: {reason}")


def unsupported(keyword: str, path: str, reason: str) -> UnsupportedError:
    """Creates the error for a valid schema that an engine cannot enforce."""
    return UnsupportedError(FIELD, f"{keyword!r} at {path}: {reason}")


def exact(value: Json, keyword: str, path: str, *, as_float: str = "r") -> Json:
    """Converts a listed value so that the library writes exactly the same value.

    Args:
        value: The value.
        keyword: The keyword that it belongs to.
        path: The path of the schema that has the keyword.
        as_float: How the library writes a float: `r` in the shortest form, `.17g` with 17 digits.

    Raises:
        UnsupportedError: It contains a number that a float cannot represent exactly.
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
                raise unsupported(keyword, path, f"this engine cannot represent the number {str(value)[:40]} exactly")
            return value if isinstance(value, int) else number
        case _:
            raise AssertionError("numbers are not parsed as floats")


def bound(schema: dict[str, Json], keyword: str, path: str) -> int | Decimal | None:
    """Reads a keyword that is the bound of a number; None if it is missing.

    Raises:
        InvalidInputError: It is not a number.
        UnsupportedError: Arithmetic with it would not be exact, or it is a boolean.
    """
    if keyword not in schema:
        return None
    value = schema[keyword]
    if isinstance(value, bool):
        raise unsupported(keyword, path, "true and false are from an old draft; use a number")
    if not isinstance(value, int | Decimal):
        raise invalid(keyword, path, "it must be a number")
    if not -_MAX_BOUND <= value <= _MAX_BOUND:
        raise unsupported(keyword, path, "this engine's arithmetic is not exact beyond 2^53")
    exact(value, keyword, path)
    return value


def count(schema: dict[str, Json], keyword: str, path: str) -> int | None:
    """Reads a keyword that is a count; None if it is missing.

    Raises:
        InvalidInputError: It is not an integer, or is negative.
        UnsupportedError: It is too large.
    """
    if keyword not in schema:
        return None
    value = schema[keyword]
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise invalid(keyword, path, "it must be an integer that is not negative")
    if value > _MAX_COUNT:
        raise unsupported(keyword, path, f"this engine supports at most {_MAX_COUNT}")
    if value < 0 or value != int(value):
        raise invalid(keyword, path, "it must be an integer that is not negative")
    return int(value)


def resolve(root: Json, reference: Json, path: str) -> Json:
    """Finds the part of the schema that a `$ref` refers to.

    Raises:
        InvalidInputError: There is no such part.
        UnsupportedError: It refers to another document, or uses an anchor.
    """
    if not isinstance(reference, str):
        raise invalid("$ref", path, "it must be a string")
    if reference != "#" and not reference.startswith("#/"):
        raise unsupported("$ref", path, f"this engine does not support the reference {reference[:80]!r}")
    target = root
    for part in unquote(reference[1:]).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and name in target:
            target = target[name]
        elif isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
            target = target[int(name[:9])]
        else:
            raise invalid("$ref", path, f"{reference[:80]!r} does not exist")
    return target


def _float(value: int | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")

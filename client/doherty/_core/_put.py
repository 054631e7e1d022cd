"""Sets the fields of messages, with readable errors."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message


def put(message: "Message", **fields: object) -> None:
    """Sets the fields that are not None. Unlike protobuf's, its errors name the field.

    Raises:
        TypeError: A value is of the wrong type.
        ValueError: A value is out of range, or a text cannot be encoded.
    """
    for name, value in fields.items():
        if value is None:
            continue
        try:
            if isinstance(value, Iterable) and not isinstance(value, str | bytes):
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        except (AttributeError, TypeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"{name} cannot be {value!r}: {error}.") from error

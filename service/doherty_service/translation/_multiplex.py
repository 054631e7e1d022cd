"""The messages of MultiplexGenerate: their bounds, which are checked before anything is made of them."""

from google.protobuf.unknown_fields import UnknownFieldSet

from doherty.v1 import generation_service_pb2 as wire
from doherty_service._errors import InvalidRequestError, UnsupportedFieldError, Violation

_MOST_ENTRIES = 16_384
"""Starts and cancels in one message."""

_MOST_VARINT_BYTES = 10
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
"""Types of fields on the wire; the lowest three bits of a tag."""


def check_multiplex_size(data: bytes) -> None:
    """Makes sure that a message has not more entries than a server can take in at a time, without parsing it.

    Raises:
        InvalidRequestError: it has more.
    """
    position, entries = 0, 0
    try:
        while position < len(data):
            tag, position = _read_varint(data, position)
            kind = tag & 7
            if kind == _VARINT:
                _, position = _read_varint(data, position)
            elif kind == _BYTES:
                length, position = _read_varint(data, position)
                position += length
            elif kind in (_FIXED_32, _FIXED_64):
                position += 4 if kind == _FIXED_32 else 8
            else:
                return  # it does not parse
            entries += 1
            if entries > _MOST_ENTRIES:
                raise _too_many()
    except ValueError:
        return  # nor does this


def check_multiplex(message: wire.MultiplexGenerateRequest) -> None:
    """Makes sure that a message has nothing around its requests that this server does not know, and not too much.

    Raises:
        InvalidRequestError: it has too many starts and cancels.
        UnsupportedFieldError: it has a field of a newer contract.
    """
    _refuse_unknown_here(message, "")
    if len(message.starts) + len(message.cancels) > _MOST_ENTRIES:
        raise _too_many()


def check_start(start: wire.MultiplexStart, index: int, last_id: int) -> int:
    """Makes sure that a request can be told from those before it, and returns its id.

    Raises:
        InvalidRequestError: its id is not above `last_id`.
        UnsupportedFieldError: there is a field of a newer contract around the request.
    """
    _refuse_unknown_here(start, "starts.")
    if start.id <= last_id:
        what = f"must be above {last_id}, the one before it" if last_id else "must be at least 1"
        raise InvalidRequestError([Violation(f"starts[{index}].id", what)])
    return start.id


def _refuse_unknown_here(message: wire.MultiplexGenerateRequest | wire.MultiplexStart, prefix: str) -> None:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        number = unknown[0].field_number
        raise UnsupportedFieldError(f"{prefix}{number}", "this server's contract has no field of this number")


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """A number, seven bits in a byte, and the position behind it.

    Raises:
        ValueError: it is longer than any number may be, or the data ends within it.
    """
    if position < len(data) and data[position] < 0x80:  # noqa: PLR2004 - nearly always a single byte
        return data[position], position + 1
    number = 0
    for shift, byte in enumerate(data[position : position + _MOST_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the high bit says whether another byte follows
            return number, position + shift + 1
    raise ValueError("not a number")


def _too_many() -> InvalidRequestError:
    return InvalidRequestError([Violation("", f"a message may have at most {_MOST_ENTRIES} starts and cancels")])

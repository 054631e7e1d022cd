"""The messages of MultiplexGenerate: their bounds, which are checked before anything is made of them."""

from collections.abc import Generator, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import request_pb2
from doherty_service._errors import InvalidRequestError, UnsupportedFieldError, Violation
from doherty_service.translation._size import (
    BYTES,
    MOST_FIELDS,
    PIECE,
    SMALL_BYTES,
    VARINT,
    Shape,
    count_fields,
    read_field,
)

_MOST_ENTRIES = 16_384
"""Starts and cancels in one message."""
_MOST_ALL_FIELDS = 16 * MOST_FIELDS
"""Of one message, those of its requests included."""


def _tags(descriptor: Descriptor) -> frozenset[int]:
    """Those of the fields that a message around requests has; protobuf takes any other for unknown."""
    tags: set[int] = set()
    for field in descriptor.fields:
        is_bytes = field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING)
        tags.add(field.number << 3 | (BYTES if is_bytes else VARINT))
    return frozenset(tags)


_START_TAGS = _tags(wire.MultiplexStart.DESCRIPTOR)
_CANCELS = wire.MultiplexGenerateRequest.DESCRIPTOR.fields_by_name["cancels"].number << 3
_STARTS = wire.MultiplexGenerateRequest.DESCRIPTOR.fields_by_name["starts"].number << 3 | BYTES
_MESSAGE_TAGS = frozenset((_STARTS, _CANCELS | VARINT, _CANCELS | BYTES))  # cancels may be packed
_REQUEST = wire.MultiplexStart.DESCRIPTOR.fields_by_name["request"].number << 3 | BYTES
_REQUEST_SHAPE = Shape(request_pb2.GenerateRequest.DESCRIPTOR)


def check_multiplex_size(data: bytes) -> Generator[None, None, None]:
    """Makes sure that a message has not more in it than a server can take in, without parsing it.

    That is done in pieces of about a millisecond: after each of them, others may have their turn.

    Raises:
        InvalidRequestError: it has more.
        UnsupportedFieldError: around its requests, it has a field of a newer contract.
    """
    told = 0
    for fields in _count(data):
        if fields > _MOST_ALL_FIELDS:
            raise _refusal(f"a message may have at most {_MOST_ALL_FIELDS} fields; numbers are to be packed")
        if fields >= told + PIECE:
            told = fields
            yield


def _count(data: bytes) -> Iterator[int]:
    """Counts the fields of a message; those of its requests only in a large one."""
    position, entries, fields = 0, 0, 0
    while position < len(data):
        try:
            tag, length, position = read_field(data, position)
        except ValueError:
            return  # it does not parse
        if tag not in _MESSAGE_TAGS:
            raise _unsupported("", tag)
        entries += 1
        if entries > _MOST_ENTRIES:
            raise _too_many_entries()
        if tag == _STARTS:
            within = 0
            for within in _count_start(data, position, position + length):
                yield fields + within
            fields += within
        position += length
        fields += 1
    yield fields


def _count_start(data: bytes, position: int, end: int) -> Iterator[int]:
    fields = 0
    while position < end:
        try:
            tag, length, position = read_field(data, position)
        except ValueError:
            break
        if tag not in _START_TAGS:
            raise _unsupported("starts.", tag)
        if tag == _REQUEST and len(data) > SMALL_BYTES:
            within = 0
            for within in count_fields(data, _REQUEST_SHAPE, position, position + length):
                yield fields + within
            fields += within
        position += length
        fields += 1
    yield fields


def check_multiplex(message: wire.MultiplexGenerateRequest) -> None:
    """Makes sure that a message has not too many entries; in its bytes, any number of cancels may be one field.

    Raises:
        InvalidRequestError: it has.
    """
    if len(message.starts) + len(message.cancels) > _MOST_ENTRIES:
        raise _too_many_entries()


def check_start(start: wire.MultiplexStart, index: int, last_id: int) -> int:
    """Makes sure that a request can be told from those before it, and returns its id.

    Raises:
        InvalidRequestError: its id is not above `last_id`.
    """
    if start.id <= last_id:
        what = f"must be above {last_id}, the one before it" if last_id else "must be at least 1"
        raise InvalidRequestError([Violation(f"starts[{index}].id", what)])
    return start.id


def _unsupported(prefix: str, tag: int) -> UnsupportedFieldError:
    return UnsupportedFieldError(f"{prefix}{tag >> 3}", "this server's contract has no field of this number")


def _too_many_entries() -> InvalidRequestError:
    return _refusal(f"a message may have at most {_MOST_ENTRIES} starts and cancels")


def _refusal(what: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", what)])

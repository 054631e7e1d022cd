"""Checks the messages of MultiplexGenerate."""

from collections.abc import Generator, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1 import request_pb2
from doherty_service._errors import InvalidRequestError, UnsupportedFieldError, Violation
from doherty_service.translation._size import (
    BYTES,
    MAX_FIELDS,
    SLICE,
    SMALL_BYTES,
    VARINT,
    Shape,
    count_fields,
    read_field,
)

_MAX_ENTRIES = 16_384
"""Maximum number of starts and cancels in one message."""
_MAX_ALL_FIELDS = 16 * MAX_FIELDS
"""Maximum number of fields in one message, including those of its requests."""


def _tags(descriptor: Descriptor) -> frozenset[int]:
    """The tags of a message's fields. protobuf treats any other tag as an unknown field."""
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
    """Checks without parsing that a message does not have too many entries and fields.

    Yields after each slice of about a millisecond.

    Raises:
        InvalidRequestError: It has too many.
        UnsupportedFieldError: Outside of its requests, it has a field of a newer contract.
    """
    slice_start = 0
    for fields in _count(data):
        if fields > _MAX_ALL_FIELDS:
            raise _invalid(f"a message may have at most {_MAX_ALL_FIELDS} fields; pack repeated numbers")
        if fields >= slice_start + SLICE:
            slice_start = fields
            yield


def _count(data: bytes) -> Iterator[int]:
    """Counts the fields of a message, and yields the count so far. Fields within requests count in large ones only."""
    position, entries, fields = 0, 0, 0
    while position < len(data):
        try:
            tag, length, position = read_field(data, position)
        except ValueError:
            return  # it cannot be parsed
        if tag not in _MESSAGE_TAGS:
            raise _unsupported("", tag)
        entries += 1
        if entries > _MAX_ENTRIES:
            raise _too_many_entries()
        if tag == _STARTS:
            nested = 0
            for nested in _count_start(data, position, position + length):
                yield fields + nested
            fields += nested
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
            nested = 0
            for nested in count_fields(data, _REQUEST_SHAPE, position, position + length):
                yield fields + nested
            fields += nested
        position += length
        fields += 1
    yield fields


def check_multiplex(message: wire.MultiplexGenerateRequest) -> None:
    """Checks the number of entries again after parsing, because any number of cancels may be packed into one field.

    Raises:
        InvalidRequestError: There are too many.
    """
    if len(message.starts) + len(message.cancels) > _MAX_ENTRIES:
        raise _too_many_entries()


def check_start(start: wire.MultiplexStart, index: int, last_id: int) -> int:
    """Checks and returns the id of a request.

    Raises:
        InvalidRequestError: It is not above `last_id`.
    """
    if start.id <= last_id:
        rule = f"must be above {last_id}, the previous id" if last_id else "must be at least 1"
        raise InvalidRequestError([Violation(f"starts[{index}].id", rule)])
    return start.id


def _unsupported(prefix: str, tag: int) -> UnsupportedFieldError:
    return UnsupportedFieldError(f"{prefix}{tag >> 3}", "this server's contract has no field of this number")


def _too_many_entries() -> InvalidRequestError:
    return _invalid(f"a message may have at most {_MAX_ENTRIES} starts and cancels")


def _invalid(description: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", description)])

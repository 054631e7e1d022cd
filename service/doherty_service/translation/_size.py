"""Counts the fields of a message before protobuf parses it, because parsing makes an object of every part."""

from collections.abc import Generator, Iterator

from google.protobuf.descriptor import Descriptor, ServiceDescriptor

from doherty.v1 import generation_service_pb2, latency_service_pb2
from doherty_service._errors import InvalidRequestError, Violation

SMALL_BYTES = 4096
"""A message of this size is parsed within a few milliseconds, whatever it contains."""

MAX_FIELDS = 16_384
"""Maximum number of fields of a request, including nested ones. A conversation of 4,096 messages has 12,288."""
SLICE = 1024
"""The number of fields that are counted in one slice of about a millisecond."""

_MAX_VARINT_BYTES = 10
VARINT, FIXED_64, BYTES, GROUP, GROUP_END, FIXED_32 = range(6)
"""Wire types: the lowest three bits of a tag."""


class Shape:
    """The fields of a message type that contain messages, by their tags, with the shapes of those messages."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.parts = {
            field.number << 3 | BYTES: Shape(field.message_type)
            for field in descriptor.fields
            if field.message_type is not None
        }


_SHAPES = {
    f"/{service.full_name}/{method.name}": Shape(method.input_type)
    for file in (generation_service_pb2.DESCRIPTOR, latency_service_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}


def register_service(service: ServiceDescriptor) -> None:
    """Allows requests of another service to be as large as those of the contract."""
    for method in service.methods:
        _SHAPES[f"/{service.full_name}/{method.name}"] = Shape(method.input_type)


def check_size(data: bytes, method: str) -> Generator[None, None, None]:
    """Checks without parsing that a request does not have too many fields. `method` is the full name of its method.

    Yields after each slice of about a millisecond.

    Raises:
        InvalidRequestError: It has too many.
    """
    if len(data) <= SMALL_BYTES:
        return
    shape = _SHAPES.get(method)
    if shape is None:
        raise _invalid(f"a message to this service may have at most {SMALL_BYTES} bytes")
    for fields in count_fields(data, shape):
        if fields > MAX_FIELDS:
            raise _invalid(f"a request may have at most {MAX_FIELDS} fields; pack repeated numbers")
        yield


def count_fields(data: bytes, shape: Shape, begin: int = 0, end: int | None = None) -> Iterator[int]:
    """Counts the fields of a message and of the messages within it. Yields the count so far after each slice.

    For a message that cannot be parsed, it counts at least the fields that protobuf would parse.
    """
    fields, slice_end = 0, SLICE
    waiting = [(begin, len(data) if end is None else end, shape)]
    while waiting:
        position, end, shape = waiting.pop()
        parts = shape.parts
        while position < end:
            try:
                tag, length, position = read_field(data, position)
            except ValueError:
                break  # the rest cannot be parsed
            if length and tag in parts:
                waiting.append((position, position + length, parts[tag]))
            position += length
            fields += 1
            if fields == slice_end:
                slice_end += SLICE
                yield fields
    yield fields


def read_field(data: bytes, position: int) -> tuple[int, int, int]:
    """Returns the tag of a field, the length of its contents and their position. For a varint: 0, and its end.

    Raises:
        ValueError: There is no field at this position.
    """
    tag, position = _read_varint(data, position)
    kind = tag & 7
    if kind == BYTES:
        length, position = _read_varint(data, position)
        return tag, length, position
    if kind == VARINT:
        return tag, 0, _read_varint(data, position)[1]
    if kind in (FIXED_32, FIXED_64):
        return tag, 4 if kind == FIXED_32 else 8, position
    if kind in (GROUP, GROUP_END):  # the contract has no groups: the fields in a group count as if they were outside
        return tag, 0, position
    raise ValueError("there is no such wire type")


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns a varint and the position after it.

    Raises:
        ValueError: It has too many bytes, or the data ends within it.
    """
    if position < len(data) and data[position] < 0x80:  # noqa: PLR2004 - nearly always a single byte
        return data[position], position + 1
    number = 0
    for shift, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the high bit says whether another byte follows
            return number, position + shift + 1
    raise ValueError("not a varint")


def _invalid(description: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", description)])

"""How much there is in a message, by its bytes alone: before protobuf makes an object of every part of it."""

from collections.abc import Generator, Iterator

from google.protobuf.descriptor import Descriptor, ServiceDescriptor

from doherty.v1 import generation_service_pb2, latency_service_pb2
from doherty_service._errors import InvalidRequestError, Violation

SMALL_BYTES = 4096
"""Whatever a message of this size holds, it is read within a few milliseconds."""

MOST_FIELDS = 16_384
"""Of a request, those of its parts included. A conversation of 4,096 messages has 12,288."""
PIECE = 1024
"""Fields that are counted at a time: about a millisecond."""

_MOST_VARINT_BYTES = 10
VARINT, FIXED_64, BYTES, GROUP, GROUP_END, FIXED_32 = range(6)
"""Types of fields on the wire; the lowest three bits of a tag."""


class Shape:
    """Which fields of a type of message hold messages, by their tags, and what those hold."""

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


def know_service(service: ServiceDescriptor) -> None:
    """Lets the requests of another service be as large as those of the contract."""
    for method in service.methods:
        _SHAPES[f"/{service.full_name}/{method.name}"] = Shape(method.input_type)


def check_size(data: bytes, method: str) -> Generator[None, None, None]:
    """Makes sure that the request of a method (its full name) has not more fields than any needs, without parsing it.

    That is done in pieces of about a millisecond: after each of them, others may have their turn.

    Raises:
        InvalidRequestError: it has more.
    """
    if len(data) <= SMALL_BYTES:
        return
    shape = _SHAPES.get(method)
    if shape is None:
        raise _refusal(f"a message to this service may have at most {SMALL_BYTES} bytes")
    for fields in count_fields(data, shape):
        if fields > MOST_FIELDS:
            raise _refusal(f"a request may have at most {MOST_FIELDS} fields; numbers are to be packed")
        yield


def count_fields(data: bytes, shape: Shape, begin: int = 0, end: int | None = None) -> Iterator[int]:
    """Counts the fields of a message and of those within it; says after each piece how many there are so far.

    A message that does not parse has at least as many as protobuf would make something of.
    """
    fields, told = 0, PIECE
    waiting = [(begin, len(data) if end is None else end, shape)]
    while waiting:
        position, end, shape = waiting.pop()
        parts = shape.parts
        while position < end:
            try:
                tag, length, position = read_field(data, position)
            except ValueError:
                break  # it does not parse beyond this
            if length and tag in parts:
                waiting.append((position, position + length, parts[tag]))
            position += length
            fields += 1
            if fields == told:
                told += PIECE
                yield fields
    yield fields


def read_field(data: bytes, position: int) -> tuple[int, int, int]:
    """The tag of a field, the length of what it holds, and where that begins; a number is passed over already.

    Raises:
        ValueError: it is no field.
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
    if kind in (GROUP, GROUP_END):  # the contract has none: what is in one counts as if it were not
        return tag, 0, position
    raise ValueError("there is no such type")


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


def _refusal(what: str) -> InvalidRequestError:
    return InvalidRequestError([Violation("", what)])

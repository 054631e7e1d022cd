"""Messages of any type, derived from their descriptors, and bytes that resemble messages or do not."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from support.fuzz.forms import GRAMMARS, JSON_SCHEMAS, REGEXES
from support.fuzz.values import SCALARS

_HINTS: dict[str, st.SearchStrategy[Any]] = {
    "doherty.v1.Constraint.json_schema": JSON_SCHEMAS,
    "doherty.v1.Constraint.regex": REGEXES,
    "doherty.v1.Constraint.grammar": GRAMMARS,
}
"""Fields whose text has a structure of its own. For all other fields, the type is enough."""

_SEEDS: dict[str, list[dict[str, Any]]] = {
    "doherty.v1.GenerateRequest": [
        {"prompt": "Name three colors."},
        {"raw_text": "Once"},
        {"token_ids": [40, 41, 42]},
        {"messages": [{"role": 2, "content": "Hi."}, {"role": 3, "content": "Hello."}, {"role": 2, "content": "Sky?"}]},
    ],
    "doherty.v1.CountTokensRequest": [{"prompt": "Name three colors."}],
}
"""Messages to which random fields are added, so that the server accepts many of the requests."""

_MAX_FIELDS = 4
_DEEPEST = 4
_LENGTHS = st.integers(0, 3) | st.sampled_from([1, 1, 1, 20, 70, 300, 5000])
_UNKNOWN = [
    b"\xa0\x06\x01",  # field 100, a varint
    b"\xfa\x06\x03abc",  # field 111, text
    b"\xa3\x06" * 40 + b"\xa4\x06" * 40,  # groups within groups
    b"\xf8\xff\xff\xff\x0f\x00",  # the largest number that a field can have
    b"\x78\x01",  # field 15, which is reserved for a later version
]


def messages(kind: Descriptor) -> st.SearchStrategy[Message]:
    """Generates messages of a type: a valid or empty one, in which some fields are set to random values."""
    seeds = [GetMessageClass(kind)(**seed) for seed in _SEEDS.get(kind.full_name, [{}])]
    return _with_fields(st.sampled_from(seeds), kind, 0)


@st.composite
def constrained(draw: st.DrawFn, kind: Descriptor) -> Message:
    """Generates a GenerateRequest that is valid except for its constraint."""
    forms = [name for name in _HINTS if name.startswith("doherty.v1.Constraint.")]
    name = draw(st.sampled_from(forms))
    request = GetMessageClass(kind)(raw_text="Once")
    setattr(request.constraint, name.rpartition(".")[2], draw(_HINTS[name]))  # type: ignore[attr-defined]  # by descriptor
    return request


@st.composite
def _with_fields(draw: st.DrawFn, seeds: st.SearchStrategy[Message], kind: Descriptor, depth: int) -> Message:
    message = GetMessageClass(kind)()
    message.CopyFrom(draw(seeds))
    fields = [field for field in kind.fields if depth < _DEEPEST or field.message_type is None]
    if fields:
        for field in draw(
            st.lists(st.sampled_from(fields), max_size=_MAX_FIELDS, unique_by=lambda descriptor: descriptor.number)
        ):
            _set(draw, message, field, depth)
    if draw(st.integers(0, 30)) == 0:
        message.MergeFromString(draw(st.sampled_from(_UNKNOWN)))
    return message


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    if field.full_name in _HINTS:
        values = _HINTS[field.full_name]
    elif field.message_type is not None:
        empty = GetMessageClass(field.message_type)()
        values = _with_fields(st.just(empty), field.message_type, depth + 1)
    else:
        values = SCALARS[field.type]
    if field.is_repeated:
        several = draw(st.lists(values, max_size=3)) or [draw(values)]
        length = draw(_LENGTHS)
        getattr(message, field.name).extend((several * length)[:length])
    elif field.message_type is not None:
        getattr(message, field.name).CopyFrom(draw(values))
    else:
        setattr(message, field.name, draw(values))


def serialize(message: Message) -> bytes:
    """Returns the bytes of a message."""
    return message.SerializeToString()


def raw(kind: Descriptor) -> st.SearchStrategy[bytes]:
    """Generates bytes that resemble a message of the type, or any other bytes."""
    return st.one_of(_damaged(messages(kind).map(serialize)), st.binary(max_size=60), _NOISE)


_NOISE = st.sampled_from(
    [
        b"\x0b" * 20_000,  # groups that never end
        b"\x0a" * 5000,
        b"\xff" * 11,  # a varint that never ends
        b"\x0a\xff\xff\xff\xff\x0f",  # a text whose length prefix says 4 GiB
        b"\x1a\x02\xff\xfe",  # a text that is not UTF-8
        b"\x08" + b"\x80" * 9 + b"\x01",  # zero, in ten bytes
        b"\x22\x00" * 100_000,  # very many empty messages
        b"\0" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    ]
)


@st.composite
def _damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Returns a message of which a part was cut, repeated, spliced or flipped."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, 300)) % (len(data) + 1)
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:at]
            case 1:
                data = data[:at] + data[at + draw(st.integers(1, 4)) :]
            case 2:
                data = data[:at] + draw(st.binary(max_size=6)) + data[at:]
            case 3 if at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
            case _:
                data = data[:at] + data[at // 2 :]
    return data

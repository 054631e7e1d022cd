"""Refuses fields of a newer contract, so that no part of a request is ignored."""

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from doherty_service._errors import UnsupportedFieldError

_MAX_NAMED_BYTES = 4096
"""If the unknown fields have more bytes than this, none is named: finding a name would take seconds."""


def refuse_unknown(wire: Message) -> None:
    """Checks that a message, including nested messages, has no field that this server's contract does not know.

    Raises:
        UnsupportedFieldError: It has one; names its path, with the number of the unknown field.
    """
    size = wire.ByteSize()
    known = type(wire)()
    known.CopyFrom(wire)
    known.DiscardUnknownFields()
    unknown_bytes = size - known.ByteSize()
    if not unknown_bytes:
        return
    path = _first_unknown(wire, "") if unknown_bytes <= _MAX_NAMED_BYTES else None
    raise UnsupportedFieldError(path or "(unknown)", "this server's contract has no field of this number")


def _first_unknown(wire: Message, prefix: str) -> str | None:
    unknown = UnknownFieldSet(wire)
    if len(unknown):
        return f"{prefix}{unknown[0].field_number}"
    for field, value in wire.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        for part in (value,) if isinstance(value, Message) else value:
            if path := _first_unknown(part, f"{prefix}{field.name}."):
                return path
    return None

"""gRPC's metadata and status as HTTP/2 header fields, and back (gRPC's PROTOCOL-HTTP2).

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Final

import grpc

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields, in the order in which they are sent."""
Metadata = tuple[tuple[str, str | bytes], ...]

METADATA_BYTES: Final = 16 << 10
"""The maximum size of a call's metadata, as RFC 9113 counts it (section 6.5.2). The other transport has the same."""

RESPONSE: Final[Fields] = (
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
)
OK_TRAILERS: Final[Fields] = ((b"grpc-status", b"0"),)

_FIELD_OVERHEAD = 32
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_RESERVED = frozenset(
    {
        b":authority",
        b":method",
        b":path",
        b":scheme",
        b"content-length",
        b"content-type",
        b"grpc-accept-encoding",
        b"grpc-encoding",
        b"grpc-timeout",
        b"host",
        b"te",
    }
)
"""Fields that are no metadata for handlers."""
_KEY = b"authorization"
"""The field with the API key."""
_UNSAFE = re.compile(rb"[^ -$&-~]")
"""The bytes of a message that are percent-encoded."""


class RefusedCallError(Exception):
    """A call that is refused before any handler sees it."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class NotGrpcError(Exception):
    """A request that is not gRPC. `status` is the HTTP status of the answer."""

    def __init__(self, status: bytes) -> None:
        super().__init__()
        self.status = status


@dataclass(slots=True)
class Head:
    """What the header fields of a call say."""

    path: bytes
    timeout: float | None
    """The seconds until its deadline."""
    metadata: Metadata
    """The metadata for its handler; of a refused call only the API key."""
    refusal: RefusedCallError | None = None
    """Why the call is refused."""


def read_head(fields: Fields) -> Head:
    """Reads the header fields of a call.

    Raises:
        NotGrpcError: The request is not gRPC.
    """
    head = dict(fields)
    if head.get(b":method") != b"POST":
        raise NotGrpcError(b"405")
    if not head.get(b"content-type", b"").startswith(b"application/grpc"):
        raise NotGrpcError(b"415")
    if head.get(b"te") != b"trailers":
        raise NotGrpcError(b"400")
    path = head[b":path"]
    try:
        _check(fields, head)
        timeout = head.get(b"grpc-timeout")
        return Head(path, None if timeout is None else _parse_timeout(timeout), _decode_metadata(fields))
    except RefusedCallError as refusal:
        return Head(path, None, _decode_metadata(field for field in fields if field[0] == _KEY), refusal)


def _check(fields: Fields, head: dict[bytes, bytes]) -> None:
    if len(fields) * _FIELD_OVERHEAD + len(b"".join(chain.from_iterable(fields))) > METADATA_BYTES:
        text = f"the metadata is larger than {METADATA_BYTES} bytes"
        raise RefusedCallError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
    if head.get(b"grpc-encoding", b"identity") != b"identity":
        raise compression_refusal()


def compression_refusal() -> RefusedCallError:
    """The refusal of compressed messages."""
    return RefusedCallError(grpc.StatusCode.UNIMPLEMENTED, "this server does not accept compressed messages")


def _parse_timeout(value: bytes) -> float:
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        raise RefusedCallError(grpc.StatusCode.INVALID_ARGUMENT, "grpc-timeout is invalid")
    return int(match[1]) * _SECONDS[match[2]]


def _decode_metadata(fields: Iterable[tuple[bytes, bytes]]) -> Metadata:
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in fields:
        if name in _RESERVED:
            continue
        if name.endswith(b"-bin"):
            metadata += [(name.decode(), _decode_binary(name, part)) for part in value.split(b",")]
        else:
            metadata.append((name.decode(), value.decode(errors="replace")))
    return tuple(metadata)


def _decode_binary(name: bytes, value: bytes) -> bytes:
    """Decodes one binary value. The padding is optional."""
    try:
        return b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        text = f"the metadata {name.decode()} is not base64"
        raise RefusedCallError(grpc.StatusCode.INVALID_ARGUMENT, text) from None


def encode_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> Fields:
    """Returns metadata as header fields."""
    return tuple([(name.encode(), _encode_value(name, value)) for name, value in metadata])


def _encode_value(name: str, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return b64encode(data).rstrip(b"=") if name.endswith("-bin") else data


def status_fields(code: grpc.StatusCode, message: str) -> Fields:
    """Returns a status as header fields. The message is percent-encoded."""
    number: int = code.value[0]
    status = (b"grpc-status", str(number).encode())
    if not message:
        return (status,)
    encoded = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], message.encode())
    return status, (b"grpc-message", encoded)

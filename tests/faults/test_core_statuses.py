"""docs/operations.md lists the statuses that gRPC's core itself sends."""

import re
from typing import NamedTuple

import grpc
import pytest
from hpack import Decoder

from support.http2 import END_HEADERS, END_STREAM, GREETING, Kind, frame, header_block, raw_connection
from support.markers import only_grpcio
from support.operations import PAGE
from support.server import ServerProcess

pytestmark = only_grpcio

METHOD = "/doherty.v1.GenerationService/GetModel"
EMPTY_MESSAGE = bytes(5)
ROWS = re.findall(r"^\| ([A-Z_]+) \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
"""The statuses and messages that the page lists."""
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Answer(NamedTuple):
    """How gRPC's core ends a call."""

    code: grpc.StatusCode | None
    """None if the stream was reset."""
    message: str
    is_of_core: bool


def ask(server: ServerProcess, headers: bytes, message: bytes = EMPTY_MESSAGE) -> Answer:
    """Makes a call. Without a message, the server waits for it."""
    with raw_connection(server.target) as connection:
        connection.send(GREETING, frame(Kind.HEADERS, END_HEADERS, 1, headers))
        if message:
            connection.send(frame(Kind.DATA, END_STREAM, 1, message))
        decoder, received_headers = Decoder(), dict[str, str]()
        for received in connection.frames():
            if received.stream == 1 and received.kind == Kind.HEADERS:
                received_headers |= {str(name): str(value) for name, value in decoder.decode(received.payload)}
            if received.stream == 1 and (received.kind == Kind.RST_STREAM or received.flags & END_STREAM):
                break
    code = CODES[int(received_headers["grpc-status"])] if "grpc-status" in received_headers else None
    return Answer(code, received_headers.get("grpc-message", ""), "grpc-status-details-bin" not in received_headers)


def call(*more: tuple[str, str], **other: str) -> bytes:
    """Returns the headers of a call, some of which can be replaced."""
    usual = header_block(METHOD, *more)
    for name, value in other.items():
        old, new = header_of(name), header_of(name, value)
        assert old in usual
        usual = usual.replace(old, new)
    return usual


USUAL = {"method": (":method", "POST"), "scheme": (":scheme", "http"), "te": ("te", "trailers")}


def header_of(name: str, value: str | None = None) -> bytes:
    field, usual = USUAL[name]
    text = usual if value is None else value
    return b"\0" + bytes([len(field)]) + field.encode() + bytes([len(text)]) + text.encode()


GZIPPED = b"\1" + (1).to_bytes(4) + b"a"
LARGE = b"\0" + (4_194_305).to_bytes(4)
PARSING = "Error parsing '{}' metadata"
LIMIT = "received metadata size exceeds hard limit"


@pytest.mark.parametrize(
    ("headers", "message", "code", "expected"),
    [
        (call(("X-Name", "a")), EMPTY_MESSAGE, grpc.StatusCode.INTERNAL, "Illegal header key: X-Name"),
        (call(("", "a")), EMPTY_MESSAGE, grpc.StatusCode.INTERNAL, "Metadata keys cannot be zero length"),
        (call(("x-bin", "!")), EMPTY_MESSAGE, grpc.StatusCode.INTERNAL, PARSING.format("x-bin")),
        (call(("grpc-timeout", "soon")), EMPTY_MESSAGE, grpc.StatusCode.INTERNAL, PARSING.format("grpc-timeout")),
        (call(("grpc-encoding", "zstd")), EMPTY_MESSAGE, grpc.StatusCode.INTERNAL, PARSING.format("grpc-encoding")),
        (call(te="gzip"), EMPTY_MESSAGE, grpc.StatusCode.INTERNAL, PARSING.format("te")),
        (call(("grpc-encoding", "gzip")), GZIPPED, grpc.StatusCode.UNIMPLEMENTED, "Compression algorithm 'gzip'"),
        (call(), LARGE, grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max"),
        (call(*[("x-a", "a" * 100)] * 200), EMPTY_MESSAGE, grpc.StatusCode.RESOURCE_EXHAUSTED, LIMIT),
        (call(("grpc-timeout", "1n")), b"", grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_of_core_is_listed(
    synthetic_server: ServerProcess, headers: bytes, message: bytes, code: grpc.StatusCode, expected: str
) -> None:
    answer = ask(synthetic_server, headers, message)
    assert (answer.code, answer.is_of_core) == (code, True)
    assert answer.message.startswith(expected)
    assert [row for row in ROWS if row[0] == code.name and row[1].startswith(expected)], (
        "docs/operations.md does not list it"
    )


def test_other_metadata_that_core_reads_is_refused_with_the_same_status(synthetic_server: ServerProcess) -> None:
    assert ask(synthetic_server, call(scheme="ftp")).message == PARSING.format(":scheme")
    for entry in ("grpc-previous-rpc-attempts", "grpc-retry-pushback-ms"):
        answer = ask(synthetic_server, call((entry, "x")))
        assert (answer.code, answer.message) == (grpc.StatusCode.INTERNAL, PARSING.format(entry))


def test_a_request_that_is_not_grpc_is_reset(synthetic_server: ServerProcess) -> None:
    assert ask(synthetic_server, call(method="GET")).code is None
    for name in USUAL:
        without = call().replace(header_of(name), b"")
        assert ask(synthetic_server, without).code is None

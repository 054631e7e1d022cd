"""Frames (RFC 9113, sections 3.4, 4 and 6)."""

from support.conformance import (
    EMPTY_MESSAGE,
    HEADERS,
    Case,
    Conversation,
    answers,
    complete_request,
    connection_error,
    ignores,
    malformed,
    opened,
    stream_error,
    watching,
)
from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    Error,
    Kind,
    frame,
    reset,
    settings,
)
from support.markers import parametrize
from support.server import ServerProcess

MOST = 16_384
"""The maximum payload of a frame unless a setting changes it."""
WINDOW = (1 << 31) - 1
SIZE, PROTOCOL, FLOW = Error.FRAME_SIZE_ERROR, Error.PROTOCOL_ERROR, Error.FLOW_CONTROL_ERROR
UNKNOWN_KIND = 0x99
EXTENSION = frame(UNKNOWN_KIND, 0xFF, 0, b"anything")
FIRST, REST = HEADERS[:20], HEADERS[20:]
LARGE_MESSAGE = b"\0" + (40_000).to_bytes(4)
PADDING = bytes(7)
PRIORITIES = bytes(4) + b"\xff"


def of_stream_0(rule: str, sent: bytes) -> Case:
    """A frame on stream 0 that belongs to another stream."""
    return Case(rule, sent, connection_error(PROTOCOL))


def half_written(*frames: bytes) -> bytes:
    """Cases in which another frame follows an incomplete header block."""
    return b"".join([frame(Kind.HEADERS, 0, 1, FIRST), *frames])


def begins_with_settings(conversation: Conversation) -> None:
    """Expects that the first frame of the server is SETTINGS (section 3.4)."""
    first = next(conversation.frames())
    assert (first.kind, first.flags, first.stream) == (Kind.SETTINGS, 0, 0)


CONNECTION = [
    Case("3.4: the preface", b"", begins_with_settings),
    Case("3.4: a request at once", complete_request(), answers()),
    Case(
        "3.4: another preface", bytes(24), connection_error(PROTOCOL), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\n\n" + settings()
    ),
    Case("3.4: HTTP/1.1", b"", connection_error(PROTOCOL), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Case("3.4: no SETTINGS after the preface", complete_request(), connection_error(PROTOCOL), PREFACE),
    Case(
        "3.4: an acknowledgement as first SETTINGS",
        b"",
        connection_error(PROTOCOL),
        PREFACE + frame(Kind.SETTINGS, ACK),
    ),
]
FORM = [
    Case("4.1: an unknown kind of frame", EXTENSION, ignores),
    Case("4.1: an unknown kind of frame on a stream", frame(UNKNOWN_KIND, 0, 1, b"a"), ignores),
    Case("4.1: unknown flags", frame(Kind.PING, 0xFE, 0, bytes(8)), ignores),
    Case("4.1: unknown flags of HEADERS", frame(Kind.HEADERS, END_HEADERS | 0x52, 1, HEADERS), ignores),
    Case("4.1: the reserved bit", frame(Kind.PING, 0, 1 << 31, bytes(8)), ignores),
    Case("4.2: DATA of the largest size", opened() + frame(Kind.DATA, 0, 1, LARGE_MESSAGE + bytes(MOST - 5)), ignores),
    Case("4.2: DATA that is too large", opened() + frame(Kind.DATA, 0, 1, bytes(MOST + 1)), stream_error(SIZE)),
    Case(
        "4.2: HEADERS that are too large", frame(Kind.HEADERS, END_HEADERS, 1, bytes(MOST + 1)), connection_error(SIZE)
    ),
    Case("4.2: SETTINGS that are too large", frame(Kind.SETTINGS, payload=bytes(MOST + 2)), connection_error(SIZE)),
    Case(
        "4.2: an unknown frame that is too large", frame(UNKNOWN_KIND, payload=bytes(MOST + 1)), connection_error(SIZE)
    ),
    Case("4.2: the largest length", b"\xff\xff\xff" + bytes(6) + bytes(100), connection_error(SIZE, PROTOCOL)),
    Case(
        "4.3: a header block that is none",
        opened(1, b"\x80\xff\xff\xff\xff\xff"),
        connection_error(Error.COMPRESSION_ERROR),
    ),
    Case(
        "4.3: PRIORITY within a header block",
        half_written(frame(Kind.PRIORITY, 0, 1, PRIORITIES)),
        connection_error(PROTOCOL),
    ),
    Case("4.3: HEADERS of another stream within a header block", half_written(opened(3)), connection_error(PROTOCOL)),
    Case("4.3: an empty header block", opened(1, b""), malformed),
]
DATA = [
    of_stream_0("6.1: DATA on stream 0", frame(Kind.DATA, 0, 0, b"a")),
    Case(
        "6.1: several DATA",
        opened() + frame(Kind.DATA, 0, 1, bytes(2)) + frame(Kind.DATA, END_STREAM, 1, bytes(3)),
        answers(),
    ),
    Case(
        "6.1: padded DATA",
        opened() + frame(Kind.DATA, END_STREAM | PADDED, 1, b"\7" + EMPTY_MESSAGE + PADDING),
        answers(),
    ),
    Case(
        "6.1: empty DATA at the end",
        opened() + frame(Kind.DATA, 0, 1, EMPTY_MESSAGE) + frame(Kind.DATA, END_STREAM, 1),
        answers(),
    ),
    Case(
        "6.1: padding only",
        opened() + frame(Kind.DATA, PADDED, 1, b"\7" + PADDING) + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(),
    ),
    Case(
        "6.1: more padding than payload",
        opened() + frame(Kind.DATA, PADDED, 1, b"\x06abcde"),
        connection_error(PROTOCOL),
    ),
    Case("6.1: no length of the padding", opened() + frame(Kind.DATA, PADDED, 1), connection_error(SIZE, PROTOCOL)),
]
HEADER_FRAMES = [
    of_stream_0("6.2: HEADERS on stream 0", opened(0)),
    Case(
        "6.2: padded HEADERS",
        frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\7" + HEADERS + PADDING)
        + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(),
    ),
    Case(
        "6.2: HEADERS with a priority",
        frame(Kind.HEADERS, END_HEADERS | PRIORITY, 1, PRIORITIES + HEADERS)
        + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(),
    ),
    Case(
        "6.2: HEADERS with padding and a priority",
        frame(Kind.HEADERS, END_HEADERS | PRIORITY | PADDED, 1, b"\7" + PRIORITIES + HEADERS + PADDING)
        + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(),
    ),
    Case(
        "6.2: more padding than payload",
        frame(Kind.HEADERS, END_HEADERS | PADDED, 1, b"\xff" + HEADERS),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.2: half a priority", frame(Kind.HEADERS, END_HEADERS | PRIORITY, 1, b"ab"), connection_error(SIZE, PROTOCOL)
    ),
    Case("6.2: DATA within a header block", half_written(frame(Kind.DATA, 0, 1, b"a")), connection_error(PROTOCOL)),
    Case("6.2: an unknown frame within a header block", half_written(EXTENSION), connection_error(PROTOCOL)),
]
PRIORITY_FRAMES = [
    of_stream_0("6.3: PRIORITY on stream 0", frame(Kind.PRIORITY, 0, 0, PRIORITIES)),
    Case("6.3: PRIORITY of an idle stream", frame(Kind.PRIORITY, 0, 99, PRIORITIES) + complete_request(), answers()),
    Case("6.3: PRIORITY of a half-closed stream", watching() + frame(Kind.PRIORITY, 0, 1, PRIORITIES), ignores),
    Case("6.3: PRIORITY of a closed stream", opened() + reset(1) + frame(Kind.PRIORITY, 0, 1, PRIORITIES), ignores),
    Case(
        "6.3: PRIORITY of an idle stream above the next request",
        frame(Kind.PRIORITY, 0, 5, PRIORITIES) + complete_request(3),
        answers(3),
    ),
    Case("6.3: the lowest weight", frame(Kind.PRIORITY, 0, 1, bytes(5)) + complete_request(), answers()),
    Case("6.3: an exclusive dependency", frame(Kind.PRIORITY, 0, 3, b"\x80\0\0\1\xff") + complete_request(), answers()),
    Case("6.3: PRIORITY of 4 bytes", opened() + frame(Kind.PRIORITY, 0, 1, bytes(4)), stream_error(SIZE)),
]
RESETS = [
    of_stream_0("6.4: RST_STREAM on stream 0", reset(0)),
    Case("6.4: RST_STREAM of an open stream", opened() + reset(1), ignores),
    Case("6.4: RST_STREAM of a half-closed stream", watching() + reset(1), ignores),
    Case(
        "6.4: RST_STREAM of a closed stream",
        opened() + reset(1) + reset(1),
        stream_error(Error.STREAM_CLOSED, or_none=True),
    ),
    Case("6.4: RST_STREAM of an idle stream", reset(1), connection_error(PROTOCOL)),
    Case("6.4: RST_STREAM of 3 bytes", opened() + frame(Kind.RST_STREAM, 0, 1, bytes(3)), connection_error(SIZE)),
    Case("7: an unknown error in RST_STREAM", opened() + reset(1, 0xFFFFFFFF), ignores),
]
CONTINUATIONS = [
    Case(
        "6.10: one CONTINUATION",
        half_written(frame(Kind.CONTINUATION, END_HEADERS, 1, REST)) + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(),
    ),
    Case(
        "6.10: three CONTINUATION",
        half_written(
            frame(Kind.CONTINUATION, 0, 1, REST[:9]),
            frame(Kind.CONTINUATION, 0, 1),
            frame(Kind.CONTINUATION, END_HEADERS, 1, REST[9:]),
        )
        + frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE),
        answers(),
    ),
    Case(
        "6.10: another frame between",
        half_written(frame(Kind.CONTINUATION, 0, 1, REST), frame(Kind.PING, payload=bytes(8))),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.10: CONTINUATION on stream 0",
        half_written(frame(Kind.CONTINUATION, END_HEADERS, 0, REST)),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.10: CONTINUATION of another stream",
        half_written(frame(Kind.CONTINUATION, END_HEADERS, 3, REST)),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.10: CONTINUATION after END_HEADERS",
        opened() + frame(Kind.CONTINUATION, END_HEADERS, 1, REST),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.10: CONTINUATION after the last CONTINUATION",
        half_written(frame(Kind.CONTINUATION, END_HEADERS, 1, REST)) + frame(Kind.CONTINUATION, END_HEADERS, 1),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.10: CONTINUATION after DATA",
        opened() + frame(Kind.DATA, 0, 1, b"\0") + frame(Kind.CONTINUATION, END_HEADERS, 1, REST),
        connection_error(PROTOCOL),
    ),
]


@parametrize(*CONNECTION, *FORM)
def test_connections_and_frames(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)


@parametrize(*DATA, *HEADER_FRAMES, *PRIORITY_FRAMES, *RESETS, *CONTINUATIONS)
def test_frames_of_streams(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)

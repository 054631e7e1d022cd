"""Calls that the server resets do not use up the flow-control window of their connection (RFC 9113, section 5.2)."""

import grpc

from support.conformance import Conversation, error_of
from support.http2 import (
    END_HEADERS,
    END_STREAM,
    GREETING,
    PREFACE,
    Error,
    Kind,
    Setting,
    frame,
    raw_connection,
    settings,
)
from support.raw_rpc import GET_MODEL, framed, headers, read_reply
from support.server import ServerProcess

FRAME_BYTES = 16_384
CUT = 16_000
UPLOADS = 120
"""This number of frames is almost twice the window of a connection."""


def reset_of(conversation: Conversation, stream: int) -> Error:
    """Returns the error code of the next RST_STREAM."""
    return next(
        error_of(each) for each in conversation.frames() if (each.kind, each.stream) == (Kind.RST_STREAM, stream)
    )


def test_uploads_that_are_refused_within_a_frame_use_up_no_window(http2_server: ServerProcess) -> None:
    refused = headers(GET_MODEL, ("grpc-encoding", "gzip"))
    with raw_connection(http2_server.target) as connection:
        connection.send(GREETING)
        conversation = Conversation(connection)
        for number in range(UPLOADS):
            stream = 2 * number + 1
            upload = frame(Kind.DATA, 0, stream, bytes(FRAME_BYTES))
            connection.send(frame(Kind.HEADERS, END_HEADERS, stream, refused) + upload[:CUT])
            assert read_reply(conversation, stream).code is grpc.StatusCode.UNIMPLEMENTED
            connection.send(upload[CUT:])
            assert reset_of(conversation, stream) is Error.NO_ERROR
        last = 2 * UPLOADS + 1
        connection.send(frame(Kind.HEADERS, END_HEADERS, last, headers(GET_MODEL)))
        connection.send(frame(Kind.DATA, END_STREAM, last, framed(b"")))
        assert read_reply(conversation, last).code is grpc.StatusCode.OK


def test_an_answer_that_has_only_headers_needs_no_window(http2_server: ServerProcess) -> None:
    with raw_connection(http2_server.target) as connection:
        connection.send(PREFACE, settings((Setting.INITIAL_WINDOW_SIZE, 0)))
        connection.send(frame(Kind.HEADERS, END_HEADERS, 1, headers(method="GET")))
        conversation = Conversation(connection)
        assert read_reply(conversation).http == "405"
        assert reset_of(conversation, 1) is Error.NO_ERROR

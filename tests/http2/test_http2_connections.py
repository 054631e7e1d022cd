"""Frames that concern connections, and windows (RFC 9113, sections 6.5 to 6.9)."""

from support.conformance import (
    HEADERS,
    Case,
    Conversation,
    answers,
    complete_request,
    connection_error,
    error_of,
    ignores,
    opened,
    stream_error,
    watching,
)
from support.http2 import ACK, END_HEADERS, Error, Kind, Setting, frame, reset, settings, window_update
from support.markers import parametrize
from support.server import ServerProcess

MOST = 16_384
"""The maximum payload of a frame unless a setting changes it."""
WINDOW = (1 << 31) - 1
SIZE, PROTOCOL, FLOW = Error.FRAME_SIZE_ERROR, Error.PROTOCOL_ERROR, Error.FLOW_CONTROL_ERROR


def acknowledges_settings(conversation: Conversation) -> None:
    """Expects that the server sends an empty SETTINGS with ACK for each of two SETTINGS."""
    heard = 0
    for received in conversation.frames():
        if received.kind == Kind.SETTINGS and received.flags & ACK:
            assert not received.payload
            heard += 1
            if heard == 2:
                return
    raise AssertionError(f"{heard} acknowledgements")


def ends_the_flood(conversation: Conversation) -> None:
    """Expects that the requests after that on stream 1 are refused, and that there are too many at last."""
    frames = list(conversation.frames())
    assert {error_of(received) for received in frames if received.kind == Kind.RST_STREAM} == {Error.REFUSED_STREAM}
    assert [error_of(goaway) for goaway in conversation.goaways] == [Error.ENHANCE_YOUR_CALM]
    assert set(conversation.headers) <= {1}


def sends_one_byte(conversation: Conversation) -> None:
    """Expects that a server sends one byte if the window allows one byte (section 6.9.1)."""
    data = next(received for received in conversation.frames() if received.kind == Kind.DATA)
    assert len(data.payload) == 1
    conversation.send(window_update(1, 100_000))
    answers()(conversation)


def sends_after_the_window_was_negative(conversation: Conversation) -> None:
    """Expects that the server sends data only when a window that was below 0 is above 0 again (section 6.9.2)."""
    next(each for each in conversation.frames() if each.kind == Kind.DATA)
    conversation.send(settings((Setting.INITIAL_WINDOW_SIZE, 0)))
    conversation.send(frame(Kind.PING, payload=b"settings"))
    for received in conversation.frames():
        assert received.kind != Kind.DATA, "data beyond the window"
        if received.kind == Kind.PING and received.flags & ACK:
            break
    conversation.send(window_update(1, 100_000))
    answers()(conversation)


SETTINGS = [
    Case("6.5: an acknowledgement with a payload", frame(Kind.SETTINGS, ACK, 0, bytes(6)), connection_error(SIZE)),
    Case("6.5: SETTINGS on a stream", frame(Kind.SETTINGS, 0, 1), connection_error(PROTOCOL)),
    Case("6.5: SETTINGS of 3 bytes", frame(Kind.SETTINGS, payload=bytes(3)), connection_error(SIZE)),
    Case("6.5: SETTINGS of 7 bytes", frame(Kind.SETTINGS, payload=bytes(7)), connection_error(SIZE)),
    Case("6.5.2: ENABLE_PUSH of 2", settings((Setting.ENABLE_PUSH, 2)), connection_error(PROTOCOL)),
    Case(
        "6.5.2: a window above the maximum", settings((Setting.INITIAL_WINDOW_SIZE, WINDOW + 1)), connection_error(FLOW)
    ),
    Case("6.5.2: frames below the minimum", settings((Setting.MAX_FRAME_SIZE, MOST - 1)), connection_error(PROTOCOL)),
    Case("6.5.2: frames above the maximum", settings((Setting.MAX_FRAME_SIZE, 1 << 24)), connection_error(PROTOCOL)),
    Case("6.5.2: an unknown setting", settings((0xFF, 1)), ignores),
    Case("6.5.2: a header table of no bytes", settings((Setting.HEADER_TABLE_SIZE, 0)) + complete_request(), answers()),
    Case(
        "6.5.2: a header table of 4 GB",
        settings((Setting.HEADER_TABLE_SIZE, 0xFFFFFFFF)) + complete_request(),
        answers(),
    ),
    Case("6.5.2: no concurrent streams", settings((Setting.MAX_CONCURRENT_STREAMS, 0)) + complete_request(), answers()),
    Case("6.5.3: an acknowledgement for each", settings((Setting.ENABLE_PUSH, 0)), acknowledges_settings),
    Case(
        "6.5.3: the last of two values counts",
        settings((Setting.INITIAL_WINDOW_SIZE, 100), (Setting.INITIAL_WINDOW_SIZE, 1)) + complete_request(),
        sends_one_byte,
    ),
]
PUSHES = [
    Case(
        "6.6: PUSH_PROMISE of a client",
        opened() + frame(Kind.PUSH_PROMISE, END_HEADERS, 1, bytes([0, 0, 0, 2]) + HEADERS),
        connection_error(PROTOCOL),
    ),
    Case(
        "6.6: PUSH_PROMISE on stream 0",
        frame(Kind.PUSH_PROMISE, END_HEADERS, 0, bytes([0, 0, 0, 2]) + HEADERS),
        connection_error(PROTOCOL),
    ),
]
PINGS = [
    Case("6.7: PING", b"", ignores),
    Case("6.7: PING with ACK that nobody asked for", frame(Kind.PING, ACK, 0, bytes(8)), ignores),
    Case("6.7: PING on a stream", frame(Kind.PING, 0, 1, bytes(8)), connection_error(PROTOCOL)),
    Case("6.7: PING of 6 bytes", frame(Kind.PING, payload=bytes(6)), connection_error(SIZE)),
    Case("6.7: PING of 9 bytes", frame(Kind.PING, payload=bytes(9)), connection_error(SIZE)),
]
GOAWAYS = [
    Case("6.8: GOAWAY on a stream", frame(Kind.GOAWAY, 0, 1, bytes(8)), connection_error(PROTOCOL)),
    Case("6.8: GOAWAY of 7 bytes", frame(Kind.GOAWAY, 0, 0, bytes(7)), connection_error(SIZE)),
    Case(
        "6.8: a request that was sent before GOAWAY", complete_request() + frame(Kind.GOAWAY, 0, 0, bytes(8)), answers()
    ),
    Case(
        "6.8: requests after GOAWAY",
        watching() + frame(Kind.GOAWAY, 0, 0, bytes(8)) + b"".join(map(complete_request, range(3, 400, 2))),
        ends_the_flood,
    ),
    Case(
        "7: an unknown error in GOAWAY",
        complete_request() + frame(Kind.GOAWAY, 0, 0, bytes(4) + b"\xff" * 4),
        answers(),
    ),
]
WINDOWS = [
    Case("6.9: WINDOW_UPDATE of 0", window_update(0, 0), connection_error(PROTOCOL)),
    Case("6.9: WINDOW_UPDATE of 0 on a stream", opened() + window_update(1, 0), stream_error(PROTOCOL)),
    Case("6.9: WINDOW_UPDATE of 3 bytes", frame(Kind.WINDOW_UPDATE, payload=bytes(3)), connection_error(SIZE)),
    Case("6.9: WINDOW_UPDATE of an idle stream", window_update(1, 1), connection_error(PROTOCOL)),
    Case("6.9: WINDOW_UPDATE of a half-closed stream", watching() + window_update(1, 1), ignores),
    Case("6.9: WINDOW_UPDATE of a closed stream", opened() + reset(1) + window_update(1, 1), ignores),
    Case("6.9: the reserved bit", window_update(0, 1 << 31 | 1), ignores),
    Case(
        "6.9.1: a window of one byte", settings((Setting.INITIAL_WINDOW_SIZE, 1)) + complete_request(), sends_one_byte
    ),
    Case("6.9.1: a window above the maximum", window_update(0, WINDOW) * 2, connection_error(FLOW)),
    Case("6.9.1: a window of a stream above the maximum", opened() + window_update(1, WINDOW) * 2, stream_error(FLOW)),
    Case(
        "6.9.2: a window that opens later",
        settings((Setting.INITIAL_WINDOW_SIZE, 0)) + complete_request() + settings((Setting.INITIAL_WINDOW_SIZE, 1)),
        sends_one_byte,
    ),
    Case(
        "6.9.2: a window below 0",
        settings((Setting.INITIAL_WINDOW_SIZE, 3)) + complete_request(),
        sends_after_the_window_was_negative,
    ),
    Case(
        "6.9.2: a setting that lets a window overflow",
        opened() + window_update(1, WINDOW - 65_535) + settings((Setting.INITIAL_WINDOW_SIZE, 65_536)),
        connection_error(FLOW),
    ),
]


@parametrize(*SETTINGS, *PUSHES, *PINGS, *GOAWAYS, *WINDOWS)
def test_frames_of_connections(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)

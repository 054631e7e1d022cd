"""States, numbers and limits of streams, and the end of connections (RFC 9113, section 5)."""

from support.conformance import (
    EMPTY_MESSAGE,
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
from support.http2 import (
    END_HEADERS,
    END_STREAM,
    PRIORITY,
    Error,
    Kind,
    Setting,
    frame,
    header_block,
    literals,
    reset,
    window_update,
)
from support.markers import parametrize
from support.server import ServerProcess

PROTOCOL, CLOSED = Error.PROTOCOL_ERROR, Error.STREAM_CLOSED
MORE = frame(Kind.DATA, END_STREAM, 1, EMPTY_MESSAGE)
CONTINUATION = frame(Kind.CONTINUATION, END_HEADERS, 1, b"")
WAITING = header_block("/doherty.v1.GenerationService/MultiplexGenerate")
LAST_HEADERS = frame(Kind.HEADERS, END_HEADERS | END_STREAM, 1, literals(("x-trailer", "a")))


def sent_after_the_answer(data: bytes, *errors: Error) -> Case:
    """A case in which frames arrive on a stream that both sides have ended."""

    def check(conversation: Conversation) -> None:
        answers()(conversation)
        conversation.send(data)
        stream_error(*errors, or_none=True)(conversation)

    return Case(f"5.1: {Kind(data[3]).name} after the answer", complete_request(), check)


def limits_streams(conversation: Conversation) -> None:
    """Expects that streams above the limit that the server announced are refused (section 5.1.2)."""
    first = next(conversation.frames()).payload
    values = {
        int.from_bytes(first[at : at + 2]): int.from_bytes(first[at + 2 : at + 6]) for at in range(0, len(first), 6)
    }
    most = values[Setting.MAX_CONCURRENT_STREAMS]
    conversation.send(b"".join(opened(stream, WAITING) for stream in range(1, 2 * most + 3, 2)))
    for received in conversation.frames():
        if received.kind == Kind.GOAWAY:
            assert error_of(received) is PROTOCOL
            return
        if received.kind == Kind.RST_STREAM:
            assert (received.stream, error_of(received) in {Error.REFUSED_STREAM, PROTOCOL}) == (2 * most + 1, True)
            break
    conversation.send(b"".join(reset(stream) for stream in range(1, 2 * most + 1, 2)))
    ignores(conversation)


STATES = [
    Case("5.1: DATA on an idle stream", frame(Kind.DATA, END_STREAM, 1, b"a"), connection_error(PROTOCOL)),
    Case("5.1: CONTINUATION on an idle stream", CONTINUATION, connection_error(PROTOCOL)),
    Case("5.1: DATA after END_STREAM", watching() + MORE, stream_error(CLOSED)),
    Case("5.1: HEADERS after END_STREAM", watching() + opened(), stream_error(CLOSED, PROTOCOL)),
    Case("5.1: CONTINUATION after END_STREAM", watching() + CONTINUATION, stream_error(CLOSED, PROTOCOL)),
    Case("5.1: DATA after RST_STREAM", opened() + reset(1) + MORE, stream_error(CLOSED, or_none=True)),
    Case("5.1: HEADERS after RST_STREAM", opened() + reset(1) + opened(), stream_error(CLOSED, PROTOCOL, or_none=True)),
    Case("5.1: CONTINUATION after RST_STREAM", opened() + reset(1) + CONTINUATION, connection_error(CLOSED, PROTOCOL)),
    sent_after_the_answer(MORE, CLOSED),
    sent_after_the_answer(opened(), CLOSED, PROTOCOL),
    sent_after_the_answer(window_update(1, 1), CLOSED),
    sent_after_the_answer(reset(1), CLOSED),
    sent_after_the_answer(CONTINUATION, CLOSED, PROTOCOL),
    sent_after_the_answer(frame(Kind.PRIORITY, 0, 1, bytes(5)), PROTOCOL),
]
NUMBERS = [
    Case("5.1.1: an even number", complete_request(2), connection_error(PROTOCOL)),
    Case("5.1.1: a number below that of an earlier stream", watching(5) + opened(3), connection_error(PROTOCOL)),
    Case(
        "5.1.1: trailers of a stream below the newest one", opened(1) + complete_request(3) + LAST_HEADERS, answers(3)
    ),
    Case("5.1.1: numbers with gaps", opened(7) + complete_request(77_777), answers(77_777)),
    Case("5.1.1: the last number", complete_request((1 << 31) - 1), answers((1 << 31) - 1)),
    Case("5.1.2: more streams than allowed", b"", limits_streams),
    Case("5.1.2: 100 requests at once", b"".join(map(complete_request, range(1, 201, 2))), answers(199)),
]
DEPENDENCIES = [
    Case(
        "5.3.2: a dependency on itself in HEADERS",
        frame(Kind.HEADERS, END_HEADERS | PRIORITY, 1, b"\0\0\0\1\xff" + header_block("/a")),
        stream_error(PROTOCOL, or_none=True),
    ),
    Case(
        "5.3.2: a dependency on itself in PRIORITY",
        frame(Kind.PRIORITY, 0, 1, b"\0\0\0\1\xff") + complete_request(),
        stream_error(PROTOCOL, or_none=True),
    ),
]
ENDS = [
    Case(
        "5.4.1: a frame after an error",
        frame(Kind.PING, payload=bytes(3)) + complete_request(),
        connection_error(Error.FRAME_SIZE_ERROR),
    ),
    Case(
        "5.4.2: a stream beside one with an error",
        watching(1) + window_update(1, 0) + complete_request(3),
        stream_error(PROTOCOL),
    ),
    Case("5.4.2: RST_STREAM is not answered with another", opened() + reset(1, PROTOCOL), ignores),
]
EXTENSIONS = [
    Case("5.5: an extension between frames", frame(0xBE, 0xFF, 1, bytes(100)) * 10 + complete_request(), answers()),
    Case("5.5: an extension between the messages of a stream", opened() + frame(0xBE, 1, 1, b"a") + MORE, answers()),
]


@parametrize(*STATES, *NUMBERS)
def test_states_and_numbers(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)


@parametrize(*DEPENDENCIES, *ENDS, *EXTENSIONS)
def test_errors_and_extensions(http2_server: ServerProcess, case: Case) -> None:
    case.run(http2_server.target)

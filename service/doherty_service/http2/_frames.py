"""Follows the frames in what a caller sends."""

from collections import deque
from struct import Struct
from typing import Final

_PREFACE_BYTES: Final = 24
_HEADER: Final = Struct(">BHBBI")
"""The length of a frame in two parts, its type, its flags, and its stream."""
_DATA: Final = 0
_HEADERS: Final = 1
_PRIORITY: Final = 2
"""Types of frames."""

_MAX_GAPS = 8
"""An older gap in the caller's numbers is forgotten. Clients leave out none, so this bounds the memory of attackers."""


class FrameTracker:
    """Does what libnghttp2 leaves out: it knows which frame is received only in part, and finds forbidden frames.

    libnghttp2 forgets the received part of a DATA frame if its stream is reset before the frame is whole, and never
    gives back the room of this part in the connection's window.

    It ignores PRIORITY on stream 0, and HEADERS that would open a stream with a lower number than an earlier one. Both
    are connection errors (RFC 9113, sections 6.3 and 5.1.1).
    """

    __slots__ = ("_gaps", "_header", "_highest", "_left", "_stream", "_type", "has_forbidden")

    def __init__(self) -> None:
        self.has_forbidden = False
        """Whether a forbidden frame was found."""
        self._header = b""
        self._left = _PREFACE_BYTES
        """The bytes of the current frame that are not received yet."""
        self._type = -1
        self._stream = 0
        self._highest = -1
        """The highest number of a stream that the caller has opened."""
        self._gaps: deque[range] = deque(maxlen=_MAX_GAPS)
        """The latest numbers that the caller has left out, and must not use any more."""

    def is_within_data(self, number: int) -> bool:
        """Whether a DATA frame of this stream is received in part."""
        return self._left > 0 and self._type == _DATA and self._stream == number

    def follow(self, data: bytes | memoryview, max_requests: int) -> int:
        """Takes what was received. Returns how many bytes may be handled now.

        These are the bytes before a forbidden frame, and before the HEADERS that follow `max_requests` others. The
        bytes after that must be given again.
        """
        at, size = 0, len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            begin = at
            header: bytes | memoryview = data[at : at + _HEADER.size - len(self._header)]
            at += len(header)
            if len(header) < _HEADER.size:
                self._header += bytes(header)
                if len(self._header) < _HEADER.size:
                    break
                header, self._header = self._header, b""
            high, low, self._type, _, number = _HEADER.unpack(header)
            self._left = high << 16 | low
            self._stream = number & 0x7FFF_FFFF
            if self._type == _HEADERS:
                if not max_requests:
                    self._left = 0
                    return begin
                max_requests -= 1
            if self._is_forbidden():
                self.has_forbidden = True
                return begin
        return size

    def _is_forbidden(self) -> bool:
        if self._type == _PRIORITY:
            return self._stream == 0
        if self._type != _HEADERS:
            return False
        if self._stream <= self._highest:
            return any(self._stream in gap for gap in self._gaps)
        if self._stream > self._highest + 2:
            self._gaps.append(range(self._highest + 2, self._stream, 2))
        self._highest = self._stream
        return False

"""Follows the frames in what a caller sends."""

from typing import Final

_PREFACE_BYTES: Final = 24
_HEADER_BYTES: Final = 9
_DATA: Final = 0
"""The type of frames with messages."""


class FrameTracker:
    """Knows which frame is received only in part.

    libnghttp2 forgets the received part of a DATA frame if its stream is reset before the frame is whole, and never
    gives back the room of this part in the connection's window.
    """

    __slots__ = ("_header", "_left", "_stream", "_type")

    def __init__(self) -> None:
        self._header = b""
        self._left = _PREFACE_BYTES
        """The bytes of the current frame that are not received yet."""
        self._type = -1
        self._stream = 0

    def is_within_data(self, number: int) -> bool:
        """Whether a DATA frame of this stream is received in part."""
        return self._left > 0 and self._type == _DATA and self._stream == number

    def follow(self, data: bytes | memoryview) -> None:
        """Takes what was received."""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            part = self._header + bytes(data[at : at + _HEADER_BYTES - len(self._header)])
            at += len(part) - len(self._header)
            if len(part) < _HEADER_BYTES:
                self._header = part
                return
            self._header = b""
            self._left = int.from_bytes(part[:3], "big")
            self._type = part[3]
            self._stream = int.from_bytes(part[5:], "big") & 0x7FFF_FFFF

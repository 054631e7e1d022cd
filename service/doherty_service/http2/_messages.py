"""gRPC's messages in the data of a stream: each has a prefix of five bytes."""

from collections.abc import Sequence
from struct import Struct
from typing import Final

import grpc

from doherty_service.http2._metadata import RefusedCallError, compression_refusal

PREFIX: Final = Struct(">BI")
"""Whether the message is compressed, and its length."""


class MessageReader:
    """Finds the messages in the data of a stream."""

    __slots__ = ("_buffer", "_limit", "expected")

    def __init__(self, limit: int) -> None:
        """A message may have `limit` bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self.expected = 0
        """The length of the message that is being received, with its prefix; 0 if it is not known yet."""

    def forget(self) -> None:
        """Drops the part of a message that was received."""
        self._buffer = bytearray()

    def check_end(self) -> None:
        """Checks that nothing follows the last message.

        Raises:
            RefusedCallError: There is a part of a message.
        """
        if self._buffer:
            raise RefusedCallError(grpc.StatusCode.INVALID_ARGUMENT, "the call ended within a message")

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Returns the messages that `data` completes.

        Raises:
            RefusedCallError: A message is too large or compressed.
        """
        buffer = self._buffer
        if not buffer and len(data) >= PREFIX.size and len(data) == self._length(data):
            return (data[PREFIX.size :],)  # one whole message, as nearly always
        buffer += data
        messages: list[bytes] = []
        while len(buffer) >= PREFIX.size:
            self.expected = self._length(buffer)
            if len(buffer) < self.expected:
                break
            messages.append(bytes(memoryview(buffer)[PREFIX.size : self.expected]))
            del buffer[: self.expected]
            self.expected = 0
        return messages

    def _length(self, data: bytes | bytearray) -> int:
        compressed, length = PREFIX.unpack_from(data)
        if compressed:
            raise compression_refusal()
        if length > self._limit:
            # The words of gRPC's core, which clients recognize, ours among them.
            text = f"SERVER: Received message larger than max ({length} vs. {self._limit})"
            raise RefusedCallError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        return PREFIX.size + int(length)

"""What a caller sends on one stream, until a handler reads it."""

from collections import deque
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty_service.http2._link import Link
from doherty_service.http2._messages import PREFIX, MessageReader
from doherty_service.http2._nghttp2 import CONNECTION_WINDOW, STREAM_WINDOW

if TYPE_CHECKING:
    import asyncio


class Incoming:
    """The messages of a stream that no handler has read yet.

    They take room in the windows of the stream and of the connection, which is given back when a handler reads them. So
    callers cannot send what nobody reads.
    """

    __slots__ = (
        "_has_begun",
        "_is_cut",
        "_link",
        "_messages",
        "_number",
        "_reader",
        "_reading",
        "_unread",
        "is_complete",
    )

    def __init__(self, link: Link, number: int, max_message: int) -> None:
        """A message may have `max_message` bytes."""
        self.is_complete = False
        """Whether the caller has ended its side."""
        self._has_begun = False
        """Whether a message was received."""
        self._is_cut = False
        """Whether the call is over, so that nothing is left to read."""
        self._link = link
        self._number = number
        self._reader = MessageReader(max_message)
        self._messages: deque[bytes] = deque()
        self._unread = 0
        """Bytes whose room in the windows is not given back yet."""
        self._reading: asyncio.Future[None] | None = None

    @property
    def has_message(self) -> bool:
        """Whether `read` would return a message at once."""
        return bool(self._messages)

    async def read(self) -> Any:
        """Returns the next message as bytes; grpc.aio.EOF if there is none.

        Raises:
            InternalError: The call is over.
        """
        while not self._messages:
            if self._is_cut:
                raise grpc.aio.InternalError("the call is over")
            if self.is_complete:
                return grpc.aio.EOF
            self._reading = self._link.loop.create_future()
            self._let_in()
            try:
                await self._reading
            finally:
                self._reading = None
        message = self._messages.popleft()
        self._give_back(PREFIX.size + len(message))
        return message

    def receive(self, data: bytes, *, is_last: bool) -> None:
        """Takes data from the caller.

        Raises:
            RefusedCallError: A message is too large or compressed, or one after the first is incomplete.
        """
        self._unread += len(data)
        self.is_complete = self.is_complete or is_last
        messages = self._reader.feed(data)
        if messages:
            self._has_begun = True
            self._messages.extend(messages)
        if is_last and self._has_begun:  # otherwise the handler finds that there is no message
            self._reader.check_end()
        if self._reading is not None:
            self._let_in()
            if self._messages or self.is_complete:
                self._wake()

    def drop(self, data: bytes, *, is_last: bool) -> None:
        """Takes data from the caller that nobody will read."""
        self.is_complete = self.is_complete or is_last
        self._unread += len(data)
        self._forget()

    def cut(self) -> None:
        """Called when the call is over, although its handler may still read."""
        self._is_cut = True
        self._forget()
        self._wake()

    def _forget(self) -> None:
        self._messages.clear()
        self._reader.forget()
        self._give_back(self._unread)

    def _wake(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)

    def _let_in(self) -> None:
        """Lets the caller send the rest of a message that a handler waits for."""
        if not self._messages and self._unread:
            expected = min(self._reader.expected, CONNECTION_WINDOW)
            if expected > STREAM_WINDOW:
                self._link.widen(self._number, expected)
            self._give_back(self._unread)

    def _give_back(self, count: int) -> None:
        """Gives back the room that received bytes take in the windows."""
        count = min(count, self._unread)
        if count:
            self._unread -= count
            self._link.consume(self._number, count)

"""What a call sends: its initial metadata, its messages and its status."""

import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

import grpc.aio

from doherty_service.http2._link import MAX_QUEUED, Link
from doherty_service.http2._messages import PREFIX
from doherty_service.http2._metadata import RESPONSE, Fields, encode_metadata

if TYPE_CHECKING:
    import asyncio

_READ_SHARE = 8
"""A caller reads, and does not stall, if it takes this part of what is queued, or `MAX_QUEUED`."""


class Outgoing:
    """The sending half of a stream. Its public methods are those of `Call`, and what the connection uses."""

    __slots__ = (
        "_has_reply",
        "_link",
        "_queued",
        "_room",
        "_room_at",
        "_serialize",
        "has_begun",
        "has_ended",
        "is_over",
        "last_read",
        "left_early",
        "number",
    )

    def __init__(self, link: Link, number: int) -> None:
        self.number = number
        self.is_over = False
        """Whether the stream is closed: nothing more can be sent or received."""
        self.has_begun = False
        """Whether the initial metadata were handed to the session."""
        self.has_ended = False
        """Whether the status was handed to the session."""
        self.last_read = 0.0
        """When the caller last took something for which a write, or the end of the call, waits."""
        self.left_early = False
        """Whether the caller left before the connection had taken the only reply."""
        self._link = link
        self._has_reply = False
        self._serialize: Callable[[Any], bytes] | None = None
        """Makes bytes of the handler's messages; None if they are bytes already."""
        self._room: asyncio.Future[None] | None = None
        """What a write, or the end of the call, waits for."""
        self._room_at = 0
        """The number of queued bytes at which it continues."""
        self._queued = 0
        """How many were queued when the caller was last seen to read."""

    async def send_initial_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Sends the initial metadata before the first message."""
        self._check()
        if not self.has_begun:
            self._begin(encode_metadata(metadata))

    async def write(self, message: Any) -> None:
        """Sends a message. Waits while the caller does not read.

        Raises:
            InternalError: The call is over.
        """
        self._check()
        self._put(message)
        if self._link.is_behind(self.number):
            # It is enough that its own bytes have left. The socket may already be full again with those of other calls.
            await self._wait_for_room(MAX_QUEUED)
            self._check()

    def start_write(self, message: Any) -> Coroutine[Any, Any, None]:
        """Does the same as `write`."""
        return self.write(message)

    @staticmethod
    def give_up(write: "asyncio.Future[Any]") -> bool:
        """Cancels a write."""
        return write.cancel()

    def put(self, message: bytes) -> bool:
        """Sends a message, unless it would have to wait for the caller to read."""
        if self.is_over or self.has_ended:
            return False
        if not self.has_begun:
            self._begin()
        return self._link.try_to_send(self.number, PREFIX.pack(0, len(message)) + message)

    def follow_reply(self) -> None:
        """Records that the handler is about to return its only reply."""
        self._has_reply = True

    def make_room(self, queued: int) -> None:
        """Continues a write, or the end of the call, if few enough bytes are still queued."""
        if queued > self._queued:
            self._queued = queued
        elif queued < self._queued - min(self._queued // _READ_SHARE, MAX_QUEUED):
            self.last_read = time.monotonic()
            self._queued = queued
        if queued <= self._room_at and self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _check(self) -> None:
        if self.is_over or self.has_ended:
            raise grpc.aio.InternalError("the call is over")

    def _begin(self, metadata: Fields = ()) -> None:
        self.has_begun = True
        self._link.send_headers(self.number, (*RESPONSE, *metadata))

    def _put(self, message: Any) -> None:
        if self.is_over:
            return
        if not self.has_begun:
            self._begin()
        data = message if self._serialize is None else self._serialize(message)
        self._link.send_data(self.number, PREFIX.pack(0, len(data)) + data)

    def _end(self, trailers: Fields) -> None:
        """Hands the status to the session."""
        self.has_ended = True
        if self.has_begun:
            self._link.send_trailers(self.number, trailers)
        else:
            self._link.send_headers(self.number, (*RESPONSE, *trailers), is_last=True)

    @property
    def _is_held(self) -> bool:
        """Whether a part of the answer will not be sent in this turn of the event loop."""
        return self.has_begun and not self.is_over and self._link.holds(self.number)

    async def _sent(self) -> None:
        """Waits until everything is sent, or will be sent in this turn of the event loop."""
        try:
            while self._is_held:
                await self._wait_for_room(0)
        except grpc.aio.InternalError:
            self.left_early = self._has_reply

    async def _wait_for_room(self, max_queued: int) -> None:
        """Waits until at most `max_queued` bytes of this call wait to be sent."""
        self._room_at = max_queued
        room = self._room = self._link.loop.create_future()
        self._link.blocked.add(self.number)
        try:
            await room
        finally:
            if self._room is room:  # else a write was given up, and the end of the call waits
                self._room = None
                self._link.blocked.discard(self.number)

    def _stop_waiting(self, *, is_sent: bool) -> None:
        """Ends a write, or the wait for the end of the call, because the stream is closed."""
        if self._room is None or self._room.done():
            return
        if is_sent:
            self._room.set_result(None)
        else:
            self._room.set_exception(grpc.aio.InternalError("the caller left"))

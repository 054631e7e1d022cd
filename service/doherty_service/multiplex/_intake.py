"""What comes from the caller of a MultiplexGenerate: messages with requests and cancels."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from doherty.v1 import generation_service_pb2 as wire
from doherty_service import translation
from doherty_service.rpc import ReceiveWatch, parse_message

if TYPE_CHECKING:  # generic for type checkers only
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

_MOST_KEPT_BYTES = 4 << 20
"""Of messages whose requests there is no room for yet. What comes when there are more is refused."""
_MESSAGE_BYTES = 128
"""What a message takes besides its bytes, about."""
_SLICE = 32
"""Requests or cancels that are handled in one go: some milliseconds."""
_CHECKED_SLICE = 512
"""Ids that are looked at in one go."""


class Requests(Protocol):
    """Where requests go. None of it raises what is a single request's fault."""

    async def follow_key(self) -> None:
        """Makes sure that what is known of the caller's key is new."""
        ...

    def is_full(self) -> bool:
        """Whether no more requests should be begun now."""
        ...

    def is_empty(self) -> bool:
        """Whether there are no requests."""
        ...

    def begin(self, start: wire.MultiplexStart, *, has_left: bool) -> None:
        """Begins a request, or only answers it where its caller has cancelled it already."""
        ...

    def refuse(self, start: wire.MultiplexStart) -> None:
        """Answers a request for which there is no room at all."""
        ...

    def cancel(self, identifier: int) -> None:
        """Cancels a request, if it has not ended."""
        ...

    async def changed(self) -> None:
        """Waits until requests have ended, or their caller has read on."""
        ...

    def is_unread(self) -> bool:
        """Whether the caller leaves so much unread that nothing more should be taken in."""
        ...

    def end_idle(self) -> None:
        """Called when no message has come for too long, while there were no requests."""
        ...


class Intake:
    """Reads the messages of one RPC.

    It reads on when there is no room for more requests, because cancels may follow: requests are kept as they came, and
    begun in their order when others have ended.
    """

    def __init__(self, context: Context, requests: Requests, receive_watch: ReceiveWatch) -> None:
        self._context = context
        self._requests = requests
        self._watch = receive_watch
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._beginning: asyncio.Task[None] | None = None
        """What begins the requests that were kept."""
        self._last_id = 0
        self._last_begun = 0
        self._left: set[int] = set()
        """Ids of requests that are kept and whose caller has cancelled them."""
        self._alarm: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Takes in all that comes; returns when the caller has no more requests and all have begun.

        Raises:
            InvalidRequestError: a message makes no sense.
            UnsupportedFieldError: a message has a field of a newer contract.
        """
        try:
            while await self._take_message():
                while self._requests.is_unread():
                    await self._requests.changed()
            if self._beginning is not None:
                await self._beginning
        finally:
            self._stop_alarm()
            if self._beginning is not None:
                self._beginning.cancel()

    def rest(self) -> None:
        """Notes that there may be no requests left. Then the next message has to come in time.

        A message of which only a part has come is not told from one that nobody has begun to send.
        """
        if self._alarm is None and self._is_idle():
            self._alarm = asyncio.get_running_loop().call_later(self._watch.timeout, self._expire)

    async def _take_message(self) -> bool:
        """Takes in what the next message brings; False when there are no more."""
        self.rest()
        data: Any = await self._context.read()
        self._stop_alarm()
        if data is grpc.aio.EOF:
            return False
        await self._requests.follow_key()
        message = await self._parse(data)
        if message.starts:
            await self._begin_or_keep(data, message.starts)
        for index, identifier in enumerate(message.cancels):
            await self._pause(index, _SLICE)
            if self._last_begun < identifier <= self._last_id:
                self._left.add(identifier)
            else:
                self._requests.cancel(identifier)
        return True

    async def _parse(self, data: bytes) -> wire.MultiplexGenerateRequest:
        """Makes a message of bytes, all of it checked before the first of its requests begins."""
        if len(data) > translation.SMALL_BYTES:
            await self._watch.turns.take()
        await self._watch.turns.share(translation.check_multiplex_size(data))
        message: wire.MultiplexGenerateRequest = parse_message(wire.MultiplexGenerateRequest.FromString, data)
        translation.check_multiplex(message)
        for index, start in enumerate(message.starts):
            await self._pause(index, _CHECKED_SLICE)
            self._last_id = translation.check_start(start, index, self._last_id)
        return message

    async def _begin_or_keep(self, data: bytes, starts: Iterable[wire.MultiplexStart]) -> None:
        if self._beginning is None and not self._requests.is_full():
            await self._begin(starts)
            return
        size = len(data) + _MESSAGE_BYTES
        if self._kept_bytes + size > _MOST_KEPT_BYTES:
            for index, start in enumerate(starts):
                await self._pause(index, _SLICE)
                self._requests.refuse(start)
            return
        self._kept.append(data)
        self._kept_bytes += size
        if self._beginning is None:
            self._beginning = asyncio.get_running_loop().create_task(self._begin_kept())

    async def _begin_kept(self) -> None:
        while self._kept:
            while self._requests.is_full():
                await self._requests.changed()
            await self._watch.turns.take()
            data = self._kept.popleft()
            self._kept_bytes -= len(data) + _MESSAGE_BYTES
            await self._begin(wire.MultiplexGenerateRequest.FromString(data).starts)
        self._beginning = None

    async def _begin(self, starts: Iterable[wire.MultiplexStart]) -> None:
        for index, start in enumerate(starts):
            await self._pause(index, _SLICE)
            self._last_begun = start.id
            has_left = start.id in self._left
            self._left.discard(start.id)
            self._requests.begin(start, has_left=has_left)

    async def _pause(self, index: int, slice_size: int) -> None:
        """Lets others have their turn after every slice of a long message."""
        if index % slice_size == slice_size - 1:
            await self._watch.turns.take()

    def _is_idle(self) -> bool:
        return self._beginning is None and self._requests.is_empty()

    def _expire(self) -> None:
        self._alarm = None
        if self._is_idle():
            self._requests.end_idle()

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

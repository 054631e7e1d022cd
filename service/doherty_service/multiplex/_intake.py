"""Receives the messages of a MultiplexGenerate, which contain requests and cancels."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

import grpc.aio

from doherty.v1 import generation_service_pb2 as wire
from doherty_service import translation
from doherty_service._call import Call
from doherty_service.rpc import ReceiveWatch, parse_message
from doherty_service.telemetry import awake

_MAX_KEPT_BYTES = 4 << 20
"""Maximum size of the messages that wait for room. Beyond it, new requests are refused."""
_MESSAGE_BYTES = 128
"""The approximate memory of a message besides its bytes."""
_SLICE = 32
"""Requests or cancels that are handled in one turn: some milliseconds."""
_CHECKED_SLICE = 512
"""Ids that are checked in one turn."""


class Requests(Protocol):
    """Takes the requests. Its methods do not raise the error of a single request."""

    async def refresh_key(self) -> None:
        """Reads the keys file again if it has changed."""
        ...

    def is_full(self) -> bool:
        """Whether further requests must wait."""
        ...

    def is_empty(self) -> bool:
        """Whether there are no requests."""
        ...

    def begin(self, start: wire.MultiplexStart, *, is_cancelled: bool) -> None:
        """Begins a request. If the caller has already cancelled it, only sends its status."""
        ...

    def refuse(self, start: wire.MultiplexStart) -> None:
        """Refuses a request for which there is no room."""
        ...

    def cancel(self, identifier: int) -> None:
        """Cancels a request, if it has not ended."""
        ...

    async def changed(self) -> None:
        """Waits until requests have ended or a message was sent."""
        ...

    def is_unread(self) -> bool:
        """Whether the caller has so many unread messages that the server should not receive more."""
        ...

    def end_idle(self) -> None:
        """Ends the RPC, because it had no requests for too long."""
        ...


class Intake:
    """Receives the messages of one RPC.

    It continues to receive when there is no room for more requests, because cancels may follow. Messages with requests
    are then kept, and their requests begin in order when others have ended.
    """

    def __init__(self, call: Call, requests: Requests, receive_watch: ReceiveWatch) -> None:
        self._call = call
        self._requests = requests
        self._watch = receive_watch
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._beginning: asyncio.Task[None] | None = None
        """The task that begins the kept requests."""
        self._last_id = 0
        self._last_begun = 0
        self._cancelled: set[int] = set()
        """Ids of kept requests that the caller has cancelled."""
        self._alarm: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    async def run(self) -> None:
        """Receives messages; returns when the caller has sent its last one and all requests have begun.

        Raises:
            InvalidRequestError: A message is invalid.
            UnsupportedFieldError: A message has a field of a newer contract.
        """
        try:
            while await self._receive():
                while self._requests.is_unread():
                    await self._requests.changed()
            if self._beginning is not None:
                await self._beginning
        finally:
            self._stop_alarm()
            if self._beginning is not None:
                self._beginning.cancel()

    def rest(self) -> None:
        """Starts the timeout for the next message, if there are no requests left.

        A partly received message looks the same as none, so the timeout covers both.
        """
        if self._alarm is None and self._is_idle():
            self._idle_since = time.monotonic()
            self._expire_after(self._watch.timeout)

    async def _receive(self) -> bool:
        """Receives and handles the next message; False if there is none."""
        self.rest()
        data: Any = await self._call.read()
        self._stop_alarm()
        if data is grpc.aio.EOF:
            return False
        await self._requests.refresh_key()
        message = await self._parse(data)
        if message.starts:
            await self._begin_or_keep(data, message.starts)
        for index, identifier in enumerate(message.cancels):
            await self._pause(index, _SLICE)
            if self._last_begun < identifier <= self._last_id:
                self._cancelled.add(identifier)
            else:
                self._requests.cancel(identifier)
        return True

    async def _parse(self, data: bytes) -> wire.MultiplexGenerateRequest:
        """Parses a message, and checks all of it before the first of its requests begins."""
        if len(data) > translation.SMALL_BYTES:
            await self._watch.turns.take()
        await self._watch.turns.run(translation.check_multiplex_size(data))
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
        if self._kept_bytes + size > _MAX_KEPT_BYTES:
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
            is_cancelled = start.id in self._cancelled
            self._cancelled.discard(start.id)
            self._requests.begin(start, is_cancelled=is_cancelled)

    async def _pause(self, index: int, slice_size: int) -> None:
        """Gives other work a turn after each slice of a long message."""
        if index % slice_size == slice_size - 1:
            await self._watch.turns.take()

    def _is_idle(self) -> bool:
        return self._beginning is None and self._requests.is_empty()

    def _expire_after(self, seconds: float) -> None:
        self._alarm = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._alarm = None
        if not self._is_idle():
            return
        # If the process did not run for a while, the next message may already be there.
        left = self._watch.timeout - awake.seconds_since(self._idle_since)
        if left > 0:
            self._expire_after(left)
        else:
            self._requests.end_idle()

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

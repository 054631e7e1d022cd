"""One MultiplexGenerate, from its first message to its last."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.request_pb2 import GenerateRequest
from doherty_service import translation
from doherty_service._errors import StalledReaderError
from doherty_service._generations import Generations
from doherty_service._readers import Writes
from doherty_service.multiplex._lane import Lane, Rpc
from doherty_service.multiplex._outbox import Outbox

Serve = Callable[[GenerateRequest, Lane], Awaitable[object]]
"""Serves one request on its lane, with all that stands round the handler of a call; fails by `Lane.abort`."""

_MOST_TOKENS = 4_096
"""In one message: more than a step of any engine makes, and little enough with log probabilities for any caller."""


class Multiplex:
    """The requests of one RPC: a task for each, and one writer for all."""

    def __init__(
        self, serve: Serve, generations: Generations, context: grpc.aio.ServicerContext[Any, Any], *, most_open: int
    ) -> None:
        """No more than `most_open` requests are served at a time; those behind them wait.

        Once as many wait, no more messages are read.
        """
        self._serve = serve
        self._generations = generations
        self._context = context
        self._most_open = most_open
        self._outbox = Outbox()
        remaining: float | None = context.time_remaining()  # without a deadline None, whatever its types say
        ends_at = None if remaining is None else time.monotonic() + remaining
        self._rpc = Rpc(self._outbox, context.peer(), ends_at)
        self._lanes: dict[int, Lane] = {}
        """All whose last part has not gone."""
        self._waiting: dict[int, Lane] = {}
        """Those among them that are not served yet."""
        self._tasks: dict[Lane, asyncio.Task[None]] = {}
        self._last_id = 0
        self._has_room = asyncio.Event()

    async def run(self, messages: AsyncIterator[wire.MultiplexGenerateRequest]) -> None:
        """Serves until the caller has no more requests, or the server drains, and all answers have ended.

        Raises:
            InvalidRequestError: a message makes no sense.
            UnsupportedFieldError: a message has a field of a newer contract.
            StalledReaderError: the caller does not read.
            UnavailableError: the server goes away, and the caller might have begun more.
        """
        stalled: StalledReaderError | None = None
        receiving = asyncio.create_task(self._receive(messages))
        draining = asyncio.create_task(self._generations.draining.wait())
        for task in (receiving, draining):
            task.add_done_callback(lambda _: self._outbox.wake())
        try:
            with self._generations.readers.watched() as writes:
                while not (receiving.done() and receiving.exception()) and (
                    self._lanes or not (receiving.done() or draining.done())
                ):
                    await self._outbox.wait()
                    await self._write(writes)
            if receiving.done():
                receiving.result()
            else:
                self._generations.check_open()
        except StalledReaderError as error:
            stalled = error
            raise
        finally:
            receiving.cancel()
            draining.cancel()
            for lane, task in self._tasks.items():
                if stalled is None or not lane.stop(stalled):
                    _cancel(task)

    async def _receive(self, messages: AsyncIterator[wire.MultiplexGenerateRequest]) -> None:
        async for message in messages:
            translation.check_multiplex(message, self._last_id)
            for start in message.starts:
                self._last_id = start.id
                self._lanes[start.id] = self._waiting[start.id] = Lane(start, self._rpc)
            self._begin_waiting()
            for identifier in message.cancels:
                if (lane := self._lanes.get(identifier)) is not None:
                    self._leave(lane)
            while len(self._waiting) >= self._most_open:
                self._has_room.clear()
                await self._has_room.wait()

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._lanes) - len(self._waiting) < self._most_open:
            self._begin(next(iter(self._waiting.values())))
        self._has_room.set()

    def _begin(self, lane: Lane) -> None:
        del self._waiting[lane.id]
        task = self._tasks[lane] = asyncio.create_task(self._run(lane))
        task.add_done_callback(lambda _: self._tasks.pop(lane))

    def _leave(self, lane: Lane) -> None:
        """Ends a request that its caller cancelled; one that waits is served first, which gives it its end."""
        if lane.id in self._waiting:
            self._begin(lane)
        if lane in self._tasks:
            _cancel(self._tasks[lane])

    async def _run(self, lane: Lane) -> None:
        """Serves a request; however it ends, its last part is then on its way."""
        remaining = lane.time_remaining()
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a request is served by a task")
        alarm = None if remaining is None else asyncio.get_running_loop().call_later(remaining, task.cancel)
        try:
            await self._serve(lane.request, lane)
        except grpc.aio.AbortError:
            pass  # which made a status its last part
        except asyncio.CancelledError:
            lane.leave()
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _write(self, writes: Writes) -> None:
        """Sends what there is of all answers in one message, and never waits for more."""
        reply = wire.MultiplexGenerateResponse()
        over: list[Lane] = []
        tokens = 0
        while tokens < _MOST_TOKENS and (lane := self._outbox.pop()) is not None:
            tokens += lane.add_to(reply)
            if lane.is_over:
                over.append(lane)
        if not reply.parts:
            return
        writes.since = time.monotonic()
        await self._context.write(reply)
        writes.since = None
        for lane in over:
            del self._lanes[lane.id]
            lane.taken()
        if over:
            self._begin_waiting()


def _cancel(task: asyncio.Task[None]) -> None:
    """Cancels a task that serves a request, but not before it has run at all, for then it would end without a word."""
    asyncio.get_running_loop().call_soon(task.cancel)

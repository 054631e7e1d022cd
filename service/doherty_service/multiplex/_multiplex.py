"""One MultiplexGenerate, from its first message to its last."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.request_pb2 import GenerateRequest
from doherty_service._errors import StalledReaderError
from doherty_service.generation import Answer, EngineSession, Generations, MessageWriter, settle
from doherty_service.multiplex._intake import Intake
from doherty_service.multiplex._lane import Lane
from doherty_service.rpc import ReceiveWatch, Reporter, note_failure, note_leaving
from doherty_service.telemetry import RequestRecord

_MOST_MESSAGE_BYTES = 1 << 20
"""A message is not filled beyond this, so that any caller takes it; a part that is larger goes by itself."""

_MOST_WAITING_BYTES = 4 << 20
"""Of requests that are not served yet. While there are more, those that come are not even begun."""


_TELL_ADMISSION = "doherty-tell-admission"
"""The metadata with which a caller asks to be told when its requests are admitted."""


class Read(Protocol):
    """Validates a request, or raises the error that its caller is told."""

    def __call__(self, answer: Answer, wire_request: GenerateRequest, *, whole: bool) -> None:
        """Sets `answer.request`, `answer.ticket` and `answer.model`."""
        ...


class _Part(NamedTuple):
    lane: Lane
    message: bytes
    is_last: bool


class Multiplex(MessageWriter):
    """The requests of one RPC, and the one writer that sends what there is of all of them in one message."""

    def __init__(  # noqa: PLR0913 - what a request needs on its way
        self,
        record: RequestRecord,
        generations: Generations,
        reporter: Reporter,
        receive_watch: ReceiveWatch,
        *,
        accept: Callable[[Answer, GenerateRequest], None],
        read: Read,
        most_open: int,
    ) -> None:
        """`accept` finds out whether a request is allowed now, and `read` whether it is valid.

        No more than `most_open` requests are served at a time; those behind them wait. Once as many wait, or so many
        bytes of them, no more are begun.
        """
        super().__init__(record.rpc_context)
        self.record = record
        self.generations = generations
        self.turns = receive_watch.turns
        self.tells_admission = (_TELL_ADMISSION, "1") in tuple(self._context.invocation_metadata() or ())
        self._reporter = reporter
        self._accept, self._read = accept, read
        self._most_open = most_open
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[int, Lane] = {}
        """All whose last part has not gone."""
        self._waiting: dict[Lane, bytes] = {}
        """Those that are not served yet, each with its request: a copy, not the whole message that brought it."""
        self._outbox: deque[Lane] = deque()
        """Those that have something to send, each once."""
        self._held_part: _Part | None = None
        """A part that did not fit into the message before."""
        self._ending: list[Lane] = []
        """Those whose last part is in the message that is being written."""
        self._is_flushing = False
        self._is_stalled = False
        self._is_idle = False
        """Whether it ends because it had nothing to do."""
        self._intake = Intake(self._context, self, receive_watch)
        self._changed = asyncio.Event()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._receiving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serves until all answers have ended and no more come, or the server drains.

        Raises:
            InvalidRequestError: a message makes no sense.
            UnsupportedFieldError: a message has a field of a newer contract.
            StalledReaderError: the caller does not read.
            UnavailableError: the server goes away, and the caller might have begun more.
        """
        self._receiving = self._loop.create_task(self._intake.run())
        draining = self._loop.create_task(self.generations.draining.wait())
        for task in (self._receiving, draining):
            task.add_done_callback(self._check_end)
        self.generations.writes.add(self)
        try:
            await self._over
            if self._receiving.done():
                self._receiving.result()
            elif not self._is_idle:
                self.generations.check_open()
        finally:
            self.generations.writes.remove(self)
            self._receiving.cancel()
            draining.cancel()
            for lane in tuple(self._lanes.values()):
                self._drop(lane)

    def line_up(self, lane: Lane) -> None:
        """Notes that a lane has something to send, which leaves with that of all others of this step."""
        if lane.in_outbox:
            return
        lane.in_outbox = True
        self._outbox.append(lane)
        self._flush_soon()

    def written(self, error: Exception | None) -> None:
        """Lets go of the lanes whose last part has left, and sends what has come meanwhile."""
        if error is not None:
            settle(self._over, error)
            return
        self._changed.set()
        try:
            self._close_ending()
        except Exception as fault:  # noqa: BLE001 - it is raised in the RPC's task, which maps and logs it
            settle(self._over, fault)
            return
        self._flush_soon()

    def _close_ending(self) -> None:
        ending, self._ending = self._ending, []
        for lane in ending:
            self._close(lane, lane.status)
        if ending:
            self._begin_waiting()
            self._check_end()
            self._intake.rest()

    def stall(self) -> None:
        """Ends the RPC, because its caller does not read."""
        self._is_stalled = True
        settle(self._over, StalledReaderError())

    def _flush_soon(self) -> None:
        if not self._is_flushing and self.write_began is None and (self._outbox or self._held_part is not None):
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Sends what there is of all answers in one message, and never waits for more."""
        self._is_flushing = False
        if self.write_began is not None or self._over.done():
            return
        parts: list[bytes] = []
        again: list[Lane] = []
        held, self._held_part = self._held_part, None
        size = 0 if held is None else self._add(held, parts)
        while self._outbox:
            lane = self._outbox.popleft()
            lane.in_outbox = False
            if held is not None and lane is held.lane:  # a message has at most one part for each request
                again.append(lane)
                continue
            taken = _Part(lane, self._message_of(lane), bool(lane.status))
            if parts and size + len(taken.message) > _MOST_MESSAGE_BYTES:
                self._held_part = taken
                break
            size += self._add(taken, parts)
            if lane.has_part and not taken.is_last:
                again.append(lane)
        for lane in again:
            self.line_up(lane)
        if parts:
            self.wants_word = True
            self.write(b"".join(parts))

    def _add(self, taken: "_Part", parts: list[bytes]) -> int:
        """Puts a part into the message, and returns its size; there may be nothing to send after all."""
        if taken.message:
            parts.append(taken.message)
        if taken.is_last:
            self._ending.append(taken.lane)
        return len(taken.message)

    @staticmethod
    def _message_of(lane: Lane) -> bytes:
        try:
            return lane.take_part()
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not stop the others; it is logged
            lane.fail_now(error)
            return lane.take_part()

    async def follow_key(self) -> None:
        """Makes sure that what is known of the caller's key is new."""
        await self.record.caller.refresh()

    def is_full(self) -> bool:
        """Whether those that wait are enough."""
        waiting_bytes = sum(map(len, self._waiting.values()))
        return len(self._lanes) >= 2 * self._most_open or waiting_bytes > _MOST_WAITING_BYTES

    def is_empty(self) -> bool:
        """Whether there are no requests."""
        return not self._lanes

    def is_unread(self) -> bool:
        """Whether a message is on its way, and much is behind it."""
        return self.write_began is not None and len(self._outbox) >= 2 * self._most_open

    async def changed(self) -> None:
        """Waits until requests have ended, or their caller has read on."""
        self._changed.clear()
        await self._changed.wait()

    def begin(self, start: wire.MultiplexStart, *, has_left: bool) -> None:
        """Takes a request in: it is served at once, or waits for others to end."""
        lane = self._add_lane(start)
        if has_left:
            lane.cancel()
            return
        try:
            self._accept(lane, start.request)  # what waits counts against the limits of its key, too
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the status of this request
            lane.break_off(error)
            return
        if len(self._lanes) - len(self._waiting) > self._most_open:
            self._waiting[lane] = start.request.SerializeToString()
        else:
            self._serve(lane, start.request)

    def refuse(self, start: wire.MultiplexStart) -> None:
        """Answers a request for which there is no room."""
        self._add_lane(start).break_off(self.generations.no_room())

    def cancel(self, identifier: int) -> None:
        """Cancels a request, if it has not ended."""
        if (lane := self._lanes.get(identifier)) is not None:
            lane.cancel()

    def end_idle(self) -> None:
        """Ends the RPC with OK: the caller begins another one when it has requests again."""
        self._is_idle = True
        settle(self._over, None)

    def _add_lane(self, start: wire.MultiplexStart) -> Lane:
        lane = self._lanes[start.id] = Lane(start, self)
        self._reporter.begin(lane.record, _metadata(start))
        self.record.has_requests = True
        return lane

    def stop_waiting(self, lane: Lane) -> None:
        """Notes that a lane is not to be served any more."""
        self._waiting.pop(lane, None)

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._lanes) - len(self._waiting) < self._most_open:
            lane = next(iter(self._waiting))
            self._serve(lane, GenerateRequest.FromString(self._waiting.pop(lane)))
        self._changed.set()

    def _serve(self, lane: Lane, request: GenerateRequest) -> None:
        try:
            self._read(lane, request, whole=lane.whole)
            if (awaited := self.generations.try_submit(lane)) is not None:
                lane.task = self._loop.create_task(self._wait(lane, awaited))
        except Exception as error:  # noqa: BLE001 - as in `begin`
            lane.break_off(error)

    async def _wait(self, lane: Lane, session: EngineSession) -> None:
        try:
            await self.generations.wait_and_submit(lane, session)
        except Exception as error:  # noqa: BLE001 - as in `begin`
            lane.task = None  # its end must not cancel it
            lane.break_off(error)
        else:
            lane.task = None

    def _drop(self, lane: Lane) -> None:
        """Lets go of a lane whose last part does not leave any more."""
        if lane.status not in ("", "OK"):
            status = lane.status
        elif self._is_stalled and lane.is_submitted:  # one that waits for a slot left nothing unread
            status = note_failure(StalledReaderError(), lane.record).code.name
        else:
            status = note_leaving(lane.record).name
        self._close(lane, status)

    def _close(self, lane: Lane, status: str) -> None:
        del self._lanes[lane.id]
        lane.close()
        self.generations.end_answer(lane)
        self._reporter.end(lane.record, status)

    def _check_end(self, _: object = None) -> None:
        """Ends the RPC if there is nothing more to do, or if its caller has sent something that makes no sense."""
        if self._receiving is None:
            return
        is_received = self._receiving.done()
        has_failed = is_received and not self._receiving.cancelled() and self._receiving.exception() is not None
        takes_no_more = is_received or self.generations.draining.is_set()
        if has_failed or (takes_no_more and not self._lanes):
            settle(self._over, None)


def _metadata(start: wire.MultiplexStart) -> list[tuple[str, str | bytes]]:
    """The caller's part of a trace, as the metadata that a call of its own would have."""
    if not start.traceparent:
        return []
    return [("traceparent", start.traceparent), ("tracestate", start.tracestate)]

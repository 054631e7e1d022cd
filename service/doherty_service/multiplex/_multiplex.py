"""One MultiplexGenerate, from its first message to its last."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from doherty.v1 import generation_service_pb2 as wire
from doherty.v1.request_pb2 import GenerateRequest
from doherty_service._errors import StalledReaderError
from doherty_service.generation import Answer, EngineSession, Generations, MessageWriter, settle
from doherty_service.multiplex._intake import Intake
from doherty_service.multiplex._lane import Lane
from doherty_service.multiplex._outbox import Outbox
from doherty_service.rpc import ReceiveWatch, Reporter, note_failure, note_leaving
from doherty_service.telemetry import RequestRecord

_MAX_WAITING_BYTES = 4 << 20
"""Maximum size of the requests that wait. Beyond it, new requests are not begun."""

_TELL_ADMISSION = "doherty-tell-admission"
"""The metadata with which a caller asks to be told when its requests are admitted."""


class Read(Protocol):
    """Validates a request, or raises the error for its caller."""

    def __call__(self, answer: Answer, wire_request: GenerateRequest, *, whole: bool) -> None:
        """Sets `answer.request`, `answer.ticket` and `answer.model`."""
        ...


class Multiplex(MessageWriter):
    """The requests of one RPC, and the writer that sends the outputs of all of them in shared messages.

    Implements `Requests` for the intake, and `Rpc` for the lanes; methods without a docstring are described there.
    """

    def __init__(  # noqa: PLR0913 - the objects that a request needs
        self,
        record: RequestRecord,
        generations: Generations,
        reporter: Reporter,
        receive_watch: ReceiveWatch,
        *,
        accept: Callable[[Answer, GenerateRequest], None],
        read: Read,
        max_open: int,
    ) -> None:
        """`accept` checks whether a request is allowed now, `read` validates it.

        At most `max_open` requests are served at a time; further ones wait. No more are begun while as many requests
        wait, or `_MAX_WAITING_BYTES` of them.
        """
        super().__init__(record.call)
        self.record = record
        self.generations = generations
        self.turns = receive_watch.turns
        self.tells_admission = (_TELL_ADMISSION, "1") in tuple(self._call.invocation_metadata() or ())
        self._reporter = reporter
        self._accept, self._read = accept, read
        self._max_open = max_open
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[int, Lane] = {}
        """Lanes by id, until their last part is sent."""
        self._waiting: dict[Lane, bytes] = {}
        """Lanes that are not served yet, each with a copy of its request (not of the whole message)."""
        self._outbox = Outbox()
        self._is_flushing = False
        self._is_stalled = False
        self._is_idle = False
        """Whether the RPC ends because it had no requests for too long."""
        self._intake = Intake(self._call, self, receive_watch)
        self._changed = asyncio.Event()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._receiving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serves until all answers have ended and the caller sends no more requests, or the server drains.

        Raises:
            InvalidRequestError: A message is invalid.
            UnsupportedFieldError: A message has a field of a newer contract.
            StalledReaderError: The caller does not read.
            UnavailableError: The server is shutting down, and the caller has not ended its side.
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
            self._receiving.cancel()
            draining.cancel()
            for lane in tuple(self._lanes.values()):
                self._drop(lane)
            await self.generations.writes.remove(self)

    def line_up(self, lane: Lane) -> None:
        """Records that a lane has something to send. It is sent together with the other lanes of this engine step."""
        if not lane.in_outbox:
            self._outbox.add(lane)
            self._flush_soon()

    def written(self, error: Exception | None) -> None:
        """Closes the lanes whose last part was sent, and sends what has come in the meantime."""
        if error is not None:
            settle(self._over, error)
            return
        self._changed.set()
        try:
            self._close_ending()
        except Exception as failure:  # noqa: BLE001 - raised in the RPC's task, which maps and logs it
            settle(self._over, failure)
            return
        self._flush_soon()

    def _close_ending(self) -> None:
        ending, self._outbox.ending = self._outbox.ending, []
        for lane in ending:
            self._close(lane, lane.status)
        if ending:
            self._begin_waiting()
            self._check_end()
            self._intake.rest()

    def stall(self) -> None:
        """Ends the RPC because its caller does not read."""
        self._is_stalled = True
        settle(self._over, StalledReaderError())

    def _flush_soon(self) -> None:
        outbox = self._outbox
        if not self._is_flushing and self.write_began is None and (outbox.lanes or outbox.postponed is not None):
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Sends what there is from all lanes in one message."""
        self._is_flushing = False
        if self.write_began is not None or self._over.done():
            return
        message = self._outbox.pack()
        if self._outbox.lanes:  # they have more to send
            self._flush_soon()
        if message:
            self.calls_written = True
            self.write(message)

    async def refresh_key(self) -> None:
        await self.record.caller.refresh()

    def is_full(self) -> bool:
        """Whether enough requests are open or waiting, so that no more may begin."""
        waiting_bytes = sum(map(len, self._waiting.values()))
        return len(self._lanes) >= 2 * self._max_open or waiting_bytes > _MAX_WAITING_BYTES

    def is_empty(self) -> bool:
        return not self._lanes

    def is_unread(self) -> bool:
        """Whether a message is being sent, and many lanes wait behind it."""
        return self.write_began is not None and len(self._outbox.lanes) >= 2 * self._max_open

    async def changed(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def begin(self, start: wire.MultiplexStart, *, is_cancelled: bool) -> None:
        """Begins a request: it is served at once, or waits for others to end."""
        lane = self._add_lane(start)
        if is_cancelled:
            lane.cancel()
            return
        try:
            self._accept(lane, start.request)  # waiting requests count against the limits of their key, too
        except Exception as error:  # noqa: BLE001 - every exception becomes the status of this request
            lane.break_off(error)
            return
        if len(self._lanes) - len(self._waiting) > self._max_open:
            self._waiting[lane] = start.request.SerializeToString()
        else:
            self._serve(lane, start.request)

    def refuse(self, start: wire.MultiplexStart) -> None:
        self._add_lane(start).break_off(self.generations.refuse_full())

    def cancel(self, identifier: int) -> None:
        if (lane := self._lanes.get(identifier)) is not None:
            lane.cancel()

    def end_idle(self) -> None:
        """Ends the RPC with OK. The caller begins a new one when it has requests again."""
        self._is_idle = True
        settle(self._over, None)

    def _add_lane(self, start: wire.MultiplexStart) -> Lane:
        lane = self._lanes[start.id] = Lane(start, self)
        self._reporter.begin(lane.record, _metadata(start))
        self.record.has_requests = True
        return lane

    def stop_waiting(self, lane: Lane) -> None:
        self._waiting.pop(lane, None)

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._lanes) - len(self._waiting) < self._max_open:
            lane = next(iter(self._waiting))
            self._serve(lane, GenerateRequest.FromString(self._waiting.pop(lane)))
        self._changed.set()

    def _serve(self, lane: Lane, request: GenerateRequest) -> None:
        try:
            self._read(lane, request, whole=lane.whole)
            if (session := self.generations.try_submit(lane)) is not None:
                lane.task = self._loop.create_task(self._wait(lane, session))
        except Exception as error:  # noqa: BLE001 - as in `begin`
            lane.break_off(error)

    async def _wait(self, lane: Lane, session: EngineSession) -> None:
        try:
            await self.generations.wait_and_submit(lane, session)
        except Exception as error:  # noqa: BLE001 - as in `begin`
            lane.task = None  # `break_off` would cancel it
            lane.break_off(error)
        else:
            lane.task = None

    def _drop(self, lane: Lane) -> None:
        """Closes a lane whose last part will not be sent."""
        if lane.status not in ("", "OK"):
            status = lane.status
        elif self._is_stalled and lane.is_submitted:  # a lane that waits for a slot has sent nothing to read
            status = note_failure(StalledReaderError(), lane.record).code.name
        else:
            status = note_leaving(lane.record, self._call).name
        self._close(lane, status)

    def _close(self, lane: Lane, status: str) -> None:
        del self._lanes[lane.id]
        lane.close()
        self.generations.end_answer(lane)
        self._reporter.end(lane.record, status)

    def _check_end(self, _: object = None) -> None:
        """Ends the RPC if there is nothing more to do, or if receiving has failed."""
        if self._receiving is None:
            return
        is_received = self._receiving.done()
        has_failed = is_received and not self._receiving.cancelled() and self._receiving.exception() is not None
        takes_no_more = is_received or self.generations.draining.is_set()
        if has_failed or (takes_no_more and not self._lanes):
            settle(self._over, None)


def _metadata(start: wire.MultiplexStart) -> list[tuple[str, str | bytes]]:
    """The caller's trace context, in the form of the metadata of a separate call."""
    if not start.traceparent:
        return []
    return [("traceparent", start.traceparent), ("tracestate", start.tracestate)]

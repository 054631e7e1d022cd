"""One request of a MultiplexGenerate."""

import asyncio
import time
from collections.abc import Generator
from typing import Protocol

from doherty.v1 import generation_service_pb2 as wire
from doherty_service import translation
from doherty_service._errors import CallerLeftError, DeadlinePassedError, OverloadedError, ServiceError, to_status
from doherty_service.generation import Answer, Generations, mark, merge
from doherty_service.rpc import Turns, note_failure, note_leaving
from doherty_service.telemetry import MULTIPLEX, RequestRecord, new_key

_MAX_PART_BYTES = (4 << 20) - 4096
"""A message with one part must fit into gRPC's default limit of clients: beyond it, the whole RPC would end."""


class Rpc(Protocol):
    """What a lane needs from its RPC."""

    record: RequestRecord
    generations: Generations
    turns: Turns
    tells_admission: bool
    """Whether its caller wants to know when requests are admitted."""

    def line_up(self, lane: "Lane") -> None:
        """Records that a lane has something to send."""
        ...

    def stop_waiting(self, lane: "Lane") -> None:
        """Records that a lane will not be served."""
        ...


class Lane(Answer):
    """One request of a shared RPC, and its answer.

    When it has something to send, it calls `Rpc.line_up`; the RPC then calls `take_part`. It has a task only while it
    waits for a slot and while a large whole answer is encoded.
    """

    def __init__(self, start: wire.MultiplexStart, rpc: Rpc) -> None:
        """The receive time of the request is now."""
        key = new_key()
        super().__init__(RequestRecord(MULTIPLEX, key, key, rpc.record.caller, rpc.record.peer))
        self.id = start.id
        self.whole = start.whole
        self.in_outbox = False
        """Whether it is in the outbox of its RPC."""
        self.task: asyncio.Task[None] | None = None
        """The task that waits for a slot or encodes the answer, if any."""
        self.status = ""
        """The name of its terminal status; empty until its last part is taken or ready."""
        self._rpc = rpc
        self._error_part: bytes | None = None
        self._whole_message: bytes | None = None
        self._admission: bytes | None = None
        """The part that says that it was admitted, until it is sent or something of the answer is there."""
        record = self.record
        record.attempt = 1 + start.attempts
        record.tried_for = max(0.0, start.trying_for.seconds + start.trying_for.nanos / 1e9)
        record.ends_at = rpc.record.ends_at
        self._alarm: asyncio.TimerHandle | None = None
        if start.HasField("timeout"):
            ends_at = record.received + start.timeout.seconds + start.timeout.nanos / 1e9
            record.ends_at = ends_at if record.ends_at is None else min(ends_at, record.ends_at)
        if record.ends_at is not None:
            seconds = max(0.0, record.ends_at - time.monotonic())
            self._alarm = asyncio.get_running_loop().call_later(seconds, self.expire)

    @property
    def has_part(self) -> bool:
        """Whether there is something to send."""
        has_outputs = self._unread or self._whole_message is not None or self._admission is not None
        return self._error_part is not None or self._failure is not None or bool(has_outputs)

    def deliver(self) -> None:
        """Joins the outbox when there is something to send. For a whole answer, that is at its end."""
        if self.whole:
            if self._failure is not None:
                self._unread.clear()
            else:
                mark(self.record, self._unread[-1])
                if self._unread[-1].finish is not None:
                    self._encode()
                return
        self._rpc.line_up(self)

    @property
    def tells_admission(self) -> bool:
        """Whether the caller has asked for it."""
        return self._rpc.tells_admission and not self.whole

    def tell_admission(self) -> None:
        """Sends a part that only says that the request was admitted."""
        self._admission = translation.multiplex_admission(self.id, self.record.request_id)
        self._rpc.line_up(self)

    def _encode(self) -> None:
        """Encodes a whole answer. A large one is encoded in slices, by a task."""
        output = merge(self._unread)
        self._unread = []
        work = translation.whole_stream_message(output, self.record, self.model, self.request)
        try:
            next(work)
        except StopIteration as done:
            self._whole_message = done.value
            self._rpc.line_up(self)
        else:
            self.task = asyncio.get_running_loop().create_task(self._encode_on(work))

    async def _encode_on(self, work: Generator[None, None, bytes]) -> None:
        try:
            self._whole_message = await self._rpc.turns.run(work)
            self._rpc.line_up(self)
        except Exception as error:  # noqa: BLE001 - an error in one answer must not stop the others; it is logged
            self.task = None  # `break_off` would cancel it
            self.break_off(error)
        else:
            self.task = None

    def end(self, error: Exception | None) -> None:
        """Makes an error the last part, and joins the outbox."""
        if error is not None:
            self.fail_now(error)
            self._rpc.line_up(self)

    def fail_now(self, error: Exception) -> None:
        """Makes an error the last part, and aborts the request in the engine."""
        if isinstance(error, CallerLeftError | DeadlinePassedError):  # not logged: it is the caller's decision
            service_error: ServiceError = error
        else:
            service_error = note_failure(error, self.record)
        self.status = service_error.code.name
        status = to_status(service_error, self.record.request_id)
        self._error_part = translation.multiplex_failure(self.id, status, self.record)
        self.close()
        self._rpc.generations.end_answer(self)

    def cancel(self) -> None:
        """Ends the request because its caller cancelled it."""
        self._leave_with(CallerLeftError())

    def expire(self) -> None:
        """Ends the request because its deadline has passed."""
        self._leave_with(DeadlinePassedError())

    def close(self) -> None:
        """Stops what may still end it or begin it."""
        self._rpc.stop_waiting(self)
        if self._alarm is not None:
            self._alarm.cancel()
        if self.task is not None:
            self.task.cancel()

    def take_part(self) -> bytes:
        """Returns a MultiplexGenerateResponse with what there is to send, or nothing. The last one sets `status`."""
        unread = self._unread
        if len(unread) == 1 and self._has_begun and not self.whole:
            output = unread[0]
            if output.finish is None and output.token_count and not output.logprobs:  # in the middle, as nearly always
                unread.clear()
                self.record.mark_tokens(output.token_count)
                return translation.multiplex_part(self.id, translation.delta_message(output))
        if self._error_part is None and not unread and self._failure is not None:
            self.fail_now(self._failure)
        if self._error_part is not None:
            return self._error_part
        if self._whole_message is not None:
            message, is_last = self._whole_message, True
            self._whole_message = None
        elif unread:
            message, is_last = self._next_message()
        else:
            admission, self._admission = self._admission, None
            return admission or b""
        if len(message) > _MAX_PART_BYTES:
            self.fail_now(_too_large(len(message)))
            return self.take_part()
        if is_last:
            self.is_over = True
            self.status = "OK"
        return translation.multiplex_part(self.id, message) if message else b""

    def _next_message(self) -> tuple[bytes, bool]:
        self._admission = None
        output = self._take()
        return self._message(output), output.finish is not None

    def _leave_with(self, error: ServiceError) -> None:
        if not self.is_over:
            note_leaving(self.record)
            self._finish(error)


def _too_large(size: int) -> ServiceError:
    return OverloadedError(
        "ANSWER_TOO_LARGE",
        f"the whole answer has {size} bytes, more than one part may have: stream it, or call Generate",
    )

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

_MOST_PART_BYTES = (4 << 20) - 4096
"""A message with one part must be taken by clients with gRPC's default limit: else it ends the RPC, and all on it."""


class Rpc(Protocol):
    """What a lane needs of the RPC that it is on."""

    record: RequestRecord
    generations: Generations
    turns: Turns
    tells_admission: bool
    """Whether its caller wants to know when requests are admitted."""

    def line_up(self, lane: "Lane") -> None:
        """Notes that a lane has something to send."""
        ...

    def stop_waiting(self, lane: "Lane") -> None:
        """Notes that a lane is not to be served any more."""
        ...


class Lane(Answer):
    """One request and its answer on an RPC that they share with others.

    It tells the RPC when it has something to send, which fetches it with `take_part`. It has a task only
    while it waits for a slot, and while a large whole answer is encoded.
    """

    def __init__(self, start: wire.MultiplexStart, rpc: Rpc) -> None:
        """The request is received now."""
        key = new_key()
        super().__init__(RequestRecord(MULTIPLEX, key, key, rpc.record.caller, rpc.record.peer))
        self.id = start.id
        self.whole = start.whole
        self.in_outbox = False
        """Whether it stands in the outbox of its RPC."""
        self.task: asyncio.Task[None] | None = None
        """What waits for a slot, or encodes the answer; None when nothing does."""
        self.status = ""
        """The name of the status that it ended with; empty while more than one part is to come."""
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
            own = record.received + start.timeout.seconds + start.timeout.nanos / 1e9
            record.ends_at = own if record.ends_at is None else min(own, record.ends_at)
        if record.ends_at is not None:
            left = max(0.0, record.ends_at - time.monotonic())
            self._alarm = asyncio.get_running_loop().call_later(left, self.expire)

    @property
    def has_part(self) -> bool:
        """Whether there is something to send."""
        waits = self._unread or self._whole_message is not None or self._admission is not None
        return self._error_part is not None or self._failure is not None or bool(waits)

    def deliver(self) -> None:
        """Marks what came, and gets in line once there is something to send."""
        if self.whole:
            if self._failure is not None:
                self._unread.clear()
            else:
                mark(self.record, self._unread[-1])
                if self._unread[-1].finish is not None:
                    self._encode()
                return
        self._rpc.line_up(self)

    def submitted(self) -> None:
        """Tells the caller soon, if it wants to know and nothing of the answer is there before."""
        super().submitted()
        if self._rpc.tells_admission and not self.whole:
            self._tell_after_silence(self._tell_admission)

    def _tell_admission(self) -> None:
        self._admission = translation.multiplex_admission(self.id, self.record.request_id)
        self._rpc.line_up(self)

    def _encode(self) -> None:
        """Makes the message of a whole answer: a large one in a task, so that others have their turns."""
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
            self._whole_message = await self._rpc.turns.share(work)
            self._rpc.line_up(self)
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not stop the others; it is logged
            self.task = None  # its end must not cancel it
            self.break_off(error)
        else:
            self.task = None

    def end(self, error: Exception | None) -> None:
        """Makes an error the last part, and gets in line with it."""
        if error is not None:
            self.fail_now(error)
            self._rpc.line_up(self)

    def fail_now(self, error: Exception) -> None:
        """Makes an error the last part, and lets the engine drop the request."""
        # Its caller knows why it left: that is nothing for the log.
        told = error if isinstance(error, CallerLeftError | DeadlinePassedError) else note_failure(error, self.record)
        self.status = told.code.name
        self._error_part = translation.multiplex_failure(self.id, to_status(told, self.record.request_id), self.record)
        self.close()
        self._rpc.generations.end_answer(self)

    def cancel(self) -> None:
        """Ends it because its caller cancelled it."""
        self._leave_with(CallerLeftError())

    def expire(self) -> None:
        """Ends it because its deadline has passed."""
        self._leave_with(DeadlinePassedError())

    def close(self) -> None:
        """Stops what may still end it or begin it."""
        self._rpc.stop_waiting(self)
        if self._alarm is not None:
            self._alarm.cancel()
        if self.task is not None:
            self.task.cancel()

    def take_part(self) -> bytes:
        """A MultiplexGenerateResponse with what there is to send, which may be nothing; `status` is set by the last."""
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
        if len(message) > _MOST_PART_BYTES:
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
        f"the whole answer has {size} bytes, more than one part may have: stream it, or ask for it with Generate",
    )

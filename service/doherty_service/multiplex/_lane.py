"""One request of a MultiplexGenerate."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio
from google.rpc.status_pb2 import Status

from doherty.v1 import generation_service_pb2 as wire
from doherty_service import translation
from doherty_service._errors import CallerLeftError, DeadlinePassedError, to_status
from doherty_service._readers import Reader
from doherty_service.latency import current_call
from doherty_service.multiplex._outbox import Outbox
from doherty_service.translation import AnswerMessages

if TYPE_CHECKING:
    from doherty_engine import StepOutput


_FAILURE_TOKENS = 32
"""A status with all its details fills a message as so many tokens do."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """What the requests of one RPC have in common."""

    outbox: Outbox
    peer: str
    ends_at: float | None
    """The RPC's own deadline, by `time.monotonic()`."""


class Lane:
    """One request and its answer on an RPC that they share, and the context that a call of its own would have.

    Its task awaits admission, and then the transport's word that the last part has gone. In between the RPC's one
    writer comes for what there is, with `add_to`: no task runs for a token.
    """

    def __init__(self, start: wire.MultiplexStart, rpc: Rpc) -> None:
        """The request is received now."""
        self.id = start.id
        self.request = start.request
        self.whole = start.whole
        self.received = time.monotonic()
        self.ends_at = rpc.ends_at
        """The caller's deadline, by `time.monotonic()`; None where there is none."""
        if start.HasField("timeout"):
            own = self.received + start.timeout.seconds + start.timeout.nanos / 1e9
            self.ends_at = own if rpc.ends_at is None else min(own, rpc.ends_at)
        self.in_outbox = False
        """Whether it stands in the outbox, which keeps this up."""
        self.is_over = False
        """Whether its last part is in a message."""
        self._rpc = rpc
        self._metadata = tuple(_metadata(start))
        self._take: Callable[[], StepOutput | None] | None = None
        self._messages: AnswerMessages | None = None
        self._delivered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: wire.MultiplexPart | None = None
        self._code: grpc.StatusCode | None = None

    def peer(self) -> str:
        """Who calls."""
        return self._rpc.peer

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None where there is none."""
        return None if self.ends_at is None else max(0.0, self.ends_at - time.monotonic())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What would be the metadata of a call of its own; the key is the RPC's."""
        return self._metadata

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sends nothing: the timings are in the summary."""

    def code(self) -> grpc.StatusCode | None:
        """The status that it failed with, told or not."""
        return self._code

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Makes a status its last part, unless that is in a message already."""
        self._code = code
        packed = dict(trailing_metadata).get("grpc-status-details-bin")
        self._fail(Status.FromString(packed) if packed else Status(code=code.value[0], message=details))
        raise grpc.aio.AbortError

    def leave(self) -> None:
        """Makes it its last part that the caller cancelled it, or that its time is over."""
        call = current_call()
        error = DeadlinePassedError() if call.status == "DEADLINE_EXCEEDED" else CallerLeftError()
        self._fail(to_status(error, call.request_id))

    async def deliver(self, reader: Reader, messages: AnswerMessages) -> None:
        """Sends an answer, and returns when the transport has taken its last part.

        Raises:
            Exception: as `Reader.next`.
        """
        self._messages = messages
        if self.whole:
            parts = [await reader.whole()]
            self._take = lambda: parts.pop() if parts else None
            self._wake()
        else:
            self._take = reader.take
            reader.listen(self._wake)
        await self._delivered

    def add_to(self, reply: wire.MultiplexGenerateResponse) -> int:
        """Puts what there is to send into a message, and tells how much that is, in tokens."""
        if self._failure is not None:
            reply.parts.append(self._failure)
            self.is_over = True
            return _FAILURE_TOKENS
        if self._take is None or self._messages is None:
            raise AssertionError("there is nothing to send before there is an answer")
        try:
            output = self._take()
            if output is None:
                return 0
            part = reply.parts.add()
            part.id = self.id
            if not self._messages.put(output, part.response):
                del reply.parts[-1]
                return 0
        except Exception as error:  # noqa: BLE001 - it is raised in the lane's task, which makes a status of it
            if reply.parts and reply.parts[-1].id == self.id:
                del reply.parts[-1]
            self.stop(error)
            return 0
        self.is_over = output.finish is not None
        return output.token_count

    def taken(self) -> None:
        """Notes that the transport has taken its last part."""
        if not self._delivered.done():
            self._delivered.set_result(None)

    def stop(self, error: Exception) -> bool:
        """Ends it with an error where it waits for nothing but its delivery, and tells whether it does."""
        if self._take is None or self._delivered.done():
            return False
        self._delivered.set_exception(error)
        return True

    def _wake(self) -> None:
        self._rpc.outbox.put(self)

    def _fail(self, status: Status) -> None:
        if not self.is_over:
            self._failure = wire.MultiplexPart(id=self.id, status=status)
            translation.put_timings(self._failure.timings, current_call())
            self._wake()


def _metadata(start: wire.MultiplexStart) -> Iterator[tuple[str, str]]:
    if start.attempts:
        yield "doherty-attempts", str(start.attempts)
    if start.traceparent:
        yield "traceparent", start.traceparent
    if start.tracestate:
        yield "tracestate", start.tracestate

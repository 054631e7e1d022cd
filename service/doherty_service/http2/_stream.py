"""One call on a connection: what a handler reads and writes."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio

from doherty_service._call import Call
from doherty_service.http2._incoming import Incoming
from doherty_service.http2._link import Link
from doherty_service.http2._metadata import (
    OK_TRAILERS,
    Fields,
    Head,
    Metadata,
    NotGrpcError,
    RefusedCallError,
    encode_metadata,
    status_fields,
)
from doherty_service.http2._nghttp2 import CANCEL
from doherty_service.http2._outgoing import Outgoing
from doherty_service.rpc import Method


class Stream(Outgoing):
    """One call: see `Call` for what handlers use."""

    __slots__ = (
        "_alarm",
        "_code",
        "_ends_at",
        "_is_running",
        "_metadata",
        "_report_closed",
        "_report_end",
        "_trailing",
        "ended_with",
        "incoming",
        "task",
    )

    def __init__(self, link: Link, number: int, max_message: int) -> None:
        """A message of the caller may have `max_message` bytes."""
        super().__init__(link, number)
        self.incoming = Incoming(link, number, max_message)
        self.task: asyncio.Task[None] | None = None
        """The task of the handler."""
        self._is_running = False
        """Whether that task has begun to run."""
        self.ended_with: grpc.StatusCode | None = None
        """The status with which the transport itself ended the call."""
        self._metadata: Metadata = ()
        self._ends_at: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._report_end: Callable[[Call], None] | None = None
        """What is called once the connection has taken the end of the call."""
        self._report_closed: Callable[[Call], None] | None = None
        """What is called at last."""
        self._trailing: Iterable[tuple[str, str | bytes]] = ()
        self._code: grpc.StatusCode | None = None

    # What handlers use.

    @property
    def has_message(self) -> bool:
        """Whether `read` would return a message at once."""
        return self.incoming.has_message

    @property
    def is_read(self) -> bool:
        """Whether all messages of the caller were read, and no more can come."""
        return self.incoming.is_complete and not self.incoming.has_message

    def read(self) -> Coroutine[Any, Any, Any]:
        """Returns the next message as bytes; grpc.aio.EOF if there is none."""
        return self.incoming.read()

    def peer(self) -> str:
        """The caller's address, in gRPC's form."""
        return self._link.peer

    def accept(self) -> None:
        """Records that the caller has passed authentication."""
        self._link.is_accepted = True

    def time_remaining(self) -> float | None:
        """The seconds until the caller's deadline, at least 0; None if there is no deadline."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def invocation_metadata(self) -> Metadata:
        """The caller's metadata."""
        return self._metadata

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Sets what is sent with the status."""
        self._trailing = metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Sets the code, as the generated base classes do before they raise NotImplementedError."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Does nothing: the generated base classes call it before they raise NotImplementedError."""

    def code(self) -> grpc.StatusCode | None:
        """The code of the status, if one was set."""
        return self._code

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> None:
        """Ends the call with a status.

        Raises:
            AbortError: The status was handed to the connection.
            InternalError: The call is over.
        """
        self._check()
        self._code = code
        self._end((*status_fields(code, details), *encode_metadata(trailing_metadata or self._trailing)))
        raise grpc.aio.AbortError

    def follow_end(self, sent: Callable[[Call], None], closed: Callable[[Call], None]) -> None:
        """Records what to call at the end of the call."""
        self._report_end, self._report_closed = sent, closed

    def reset(self) -> None:
        """Ends the call without a status."""
        self._reset()
        self._cancel()  # the handler need not wait until the socket takes the reset

    # What the connection uses.

    def begin(self, head: Head, method: Method) -> None:
        """Starts the handler in a task, also that of a call that the transport refuses: it records the call."""
        loop = self._link.loop
        self._metadata = head.metadata
        if head.timeout is not None:
            self._ends_at = time.monotonic() + head.timeout
            self._alarm = loop.call_later(head.timeout, self._expire)
        self.task = asyncio.Task(self._run(method), loop=loop)
        if head.refusal is not None:
            self.refuse(head.refusal)

    async def _run(self, method: Method) -> None:
        """Runs the handler, sends its status, and waits until the connection has taken it."""
        self._is_running = True
        self._serialize = method.serialize
        try:
            reply = await method.serve(self)
            if reply is not None:
                self._put(reply)
            self._end((*OK_TRAILERS, *encode_metadata(self._trailing)))
            if self._is_held:
                await self._sent()
        except grpc.aio.AbortError:
            # Its status is known, and may have to wait behind messages that the caller does not read.
            self._report_sent()
            await self._sent()
        except asyncio.CancelledError:
            if self.has_ended:  # at its deadline, or because the transport refused it
                self._report_sent()
                await self._sent()
            else:
                self._reset()
        except BaseException:
            self._end(status_fields(grpc.StatusCode.INTERNAL, "the server failed"))
            raise
        finally:
            self._report_sent()
            if self._report_closed is not None:
                self._report_closed(self)
                self._report_closed = None

    def _report_sent(self) -> None:
        report, self._report_end = self._report_end, None
        if report is not None:
            report(self)

    def receive(self, data: bytes, *, is_last: bool) -> None:
        """Takes data from the caller."""
        if self.has_ended:
            self.incoming.drop(data, is_last=is_last)
            return
        try:
            self.incoming.receive(data, is_last=is_last)
        except RefusedCallError as error:
            self.refuse(error)

    def reject(self, error: NotGrpcError) -> None:
        """Answers a request that is not gRPC."""
        self.has_ended = True
        self._link.send_headers(self.number, ((b":status", error.status),), is_last=True)
        self._follow_answer()

    def refuse(self, error: RefusedCallError) -> None:
        """Ends the call with a status of the transport's own; its handler is cancelled."""
        self._end_early(error.code, error.message)

    def close(self, *, is_sent: bool, code: grpc.StatusCode | None = None) -> None:
        """Called once, when the stream is closed; `is_sent` tells whether the caller has got all of it.

        A handler that still runs is cancelled: its caller has left, or the transport has ended the call with `code`.
        """
        self.is_over = True
        self.ended_with = self.ended_with or code
        self._stop_alarm()
        self.incoming.is_complete = True
        self.incoming.cut()
        if not self.has_ended:
            self._cancel()
        self._stop_waiting(is_sent=is_sent)

    def _end(self, trailers: Fields) -> None:
        if not self.has_ended and not self.is_over:
            self._stop_alarm()
            super()._end(trailers)
            self._follow_answer()

    def _follow_answer(self) -> None:
        """Has the stream reset once its answer is sent, if its caller has not ended its side then."""
        if not self.incoming.is_complete:
            self._link.answered[self.number] = time.monotonic()

    def _reset(self) -> None:
        if not self.is_over:
            self._link.reset(self.number, CANCEL)

    def _expire(self) -> None:
        self._end_early(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _end_early(self, code: grpc.StatusCode, message: str) -> None:
        if not self.has_ended:
            self.ended_with = code
            self._end(status_fields(code, message))
            self.incoming.cut()
            self._cancel()

    def _cancel(self) -> None:
        """Cancels the handler. If it does not run yet, it learns when it reads that the call is over.

        A task that is cancelled before it runs never runs, and its call would not be recorded.
        """
        if self.task is not None and self._is_running:
            self.task.cancel()

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

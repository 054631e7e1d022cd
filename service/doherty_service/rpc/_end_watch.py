"""Sees RPCs to their end, and hangs up on callers that do not read it."""

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary

from doherty_service._errors import StalledReaderError
from doherty_service.rpc._failures import note_failure, note_leaving
from doherty_service.rpc._reporter import Reporter
from doherty_service.telemetry import RequestRecord, awake

_LOOKS = 4
"""How often the watch looks within the time for which a caller may stall."""
_LEAST_SECONDS = 5.0
"""At least for so long may a caller read the status of an answer that it has not read."""

Task = asyncio.Task[Any]

_rpcs: "WeakKeyDictionary[Task, Task]" = WeakKeyDictionary()
"""The tasks in which grpc.aio waits for the ends of RPCs, by those of their handlers."""


def note_handler(handler: Task) -> None:
    """Notes that the running task, in which grpc.aio will wait for the end of an RPC, has made that of its handler."""
    rpc = asyncio.current_task()
    if rpc is not None:
        _rpcs[handler] = rpc


class EndWatch:
    """The RPCs whose handlers are done.

    gRPC sends what is left of an answer, and the status, only as the caller reads. So an RPC is reported when gRPC has
    taken them, and one whose caller does not read is ended: gRPC's core would keep it as long as the connection lives.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._unreported: dict[Task, tuple[RequestRecord, str]] = {}
        """The records, and the names of their statuses, by the tasks of their handlers."""
        self._open: dict[Task, tuple[float, Task]] = {}
        """Since when handlers are done, and their tasks, by the task of the RPC."""

    def add(self, record: RequestRecord, status: str) -> None:
        """Notes that the handler of the running task is done."""
        handler = asyncio.current_task()
        if handler is None:
            raise AssertionError("gRPC runs each RPC in a task")
        self._unreported[handler] = record, status
        handler.add_done_callback(self._report)
        if (rpc := _rpcs.get(handler)) is not None:
            self._open[rpc] = time.monotonic(), handler
            rpc.add_done_callback(self._forget)

    def follow_reply(self) -> None:
        """Notes whether the caller leaves before gRPC has taken the reply, which the running task now returns.

        grpc.aio keeps that to itself: the task ends in the same way. But what it waits for fails.
        """
        handler = asyncio.current_task()

        def follow() -> None:
            taking: asyncio.Future[Any] | None = getattr(handler, "_fut_waiter", None)
            if taking is not None:
                taking.add_done_callback(note)

        def note(taking: "asyncio.Future[Any]") -> None:
            if not taking.cancelled() and taking.exception() is not None and handler in self._unreported:
                record, _ = self._unreported[handler]
                self._unreported[handler] = record, note_leaving(record).name

        asyncio.get_running_loop().call_soon(follow)

    async def run(self, timeout: float) -> None:  # noqa: ASYNC109 - of the callers, not of this
        """Hangs up on those that do not read for `timeout` seconds; runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _LOOKS)
            self._look(timeout)

    def _look(self, timeout: float) -> None:
        # Not in `run`: gRPC keeps an RPC as long as a local variable has its context.
        for rpc, (since, handler) in self._open.items():
            most = timeout if handler in self._unreported else max(timeout, _LEAST_SECONDS)
            if awake.seconds_since(since) > most:
                self._hang_up(rpc, handler)

    def _hang_up(self, rpc: Task, handler: Task) -> None:
        """Ends an RPC whose status is not read.

        grpc.aio can only send a status, which waits behind what is not read. But it resets an RPC that no task holds
        any more: neither its handler's, nor the one that waits for its end.
        """
        if handler in self._unreported:
            record, _ = self._unreported[handler]
            self._unreported[handler] = record, note_failure(StalledReaderError(), record).code.name
        handler.cancel()
        rpc.cancel()

    def _report(self, handler: Task) -> None:
        self._reporter.end(*self._unreported.pop(handler))

    def _forget(self, rpc: Task) -> None:
        del self._open[rpc]

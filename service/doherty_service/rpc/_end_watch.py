"""Reports the ends of RPCs, and ends RPCs whose callers do not read their status."""

import asyncio
import time
from typing import Any
from weakref import WeakKeyDictionary

from doherty_service._errors import StalledReaderError
from doherty_service.rpc._failures import note_failure, note_leaving
from doherty_service.rpc._reporter import Reporter
from doherty_service.telemetry import RequestRecord, awake

_CHECKS = 4
"""How often the watch checks within the timeout."""
_MIN_SECONDS = 5.0
"""The minimum time for a caller to read the status of an answer whose handler was already reported."""

Task = asyncio.Task[Any]

_rpcs: "WeakKeyDictionary[Task, Task]" = WeakKeyDictionary()
"""By the task of a handler: the task in which grpc.aio waits for the end of its RPC."""


def note_handler(handler: Task) -> None:
    """Records the task of a handler. Called in the task of its RPC, in which grpc.aio waits for the end of the RPC."""
    rpc = asyncio.current_task()
    if rpc is not None:
        _rpcs[handler] = rpc


class EndWatch:
    """The RPCs whose handlers are done.

    gRPC sends the rest of an answer and the status only as fast as the caller reads. So an RPC is reported once gRPC
    has accepted them. If the caller does not read, the RPC is ended: gRPC's core would keep it as long as the
    connection.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._unreported: dict[Task, tuple[RequestRecord, str]] = {}
        """By the task of a handler: the record and the name of the status."""
        self._open: dict[Task, tuple[float, Task]] = {}
        """By the task of an RPC: when its handler was done, and the handler's task."""

    def add(self, record: RequestRecord, status: str) -> None:
        """Records that the handler that runs in the current task is done."""
        handler = asyncio.current_task()
        if handler is None:
            raise AssertionError("gRPC runs each RPC in a task")
        self._unreported[handler] = record, status
        handler.add_done_callback(self._report)
        if (rpc := _rpcs.get(handler)) is not None:
            self._open[rpc] = time.monotonic(), handler
            rpc.add_done_callback(self._forget)

    def follow_reply(self) -> None:
        """Finds out whether the caller leaves before gRPC accepts the reply that the current task is about to return.

        grpc.aio does not report this: the task ends in the same way. But the future that the task awaits fails.
        """
        handler = asyncio.current_task()

        def follow() -> None:
            sending: asyncio.Future[Any] | None = getattr(handler, "_fut_waiter", None)
            if sending is not None:
                sending.add_done_callback(check)

        def check(sending: "asyncio.Future[Any]") -> None:
            if not sending.cancelled() and sending.exception() is not None and handler in self._unreported:
                record, _ = self._unreported[handler]
                self._unreported[handler] = record, note_leaving(record).name

        asyncio.get_running_loop().call_soon(follow)

    async def run(self, timeout: float) -> None:  # noqa: ASYNC109 - the callers' timeout, not this coroutine's
        """Resets RPCs whose callers do not read for `timeout` seconds. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _CHECKS)
            self._check(timeout)

    def _check(self, timeout: float) -> None:
        # Not inlined into `run`: gRPC keeps an RPC as long as a local variable refers to its context.
        for rpc, (since, handler) in self._open.items():
            limit = timeout if handler in self._unreported else max(timeout, _MIN_SECONDS)
            if awake.seconds_since(since) > limit:
                self._reset(rpc, handler)

    def _reset(self, rpc: Task, handler: Task) -> None:
        """Ends an RPC whose status is not read.

        grpc.aio can only send a status, which would wait behind the unread messages. But it resets an RPC once no task
        refers to it any more: neither the task of its handler nor the task that waits for its end.
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

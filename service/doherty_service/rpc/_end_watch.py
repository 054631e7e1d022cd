"""Reports the ends of RPCs, and ends RPCs whose callers do not read their status."""

import asyncio
import time

from doherty_service._call import Call
from doherty_service._errors import StalledReaderError
from doherty_service.rpc._failures import note_failure, note_leaving
from doherty_service.rpc._reporter import Reporter
from doherty_service.telemetry import RequestRecord, awake

_CHECKS = 4
"""How often the watch checks within the timeout."""
_MIN_SECONDS = 5.0
"""The minimum time for a caller to read the status of an answer whose handler was already reported."""


class EndWatch:
    """The RPCs whose handlers are done.

    gRPC sends the rest of an answer and the status only as fast as the caller reads. So an RPC is reported once the
    transport has accepted them. If the caller does not read, the RPC is ended: the transport would keep it as long as
    the connection.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._unreported: dict[Call, tuple[RequestRecord, str]] = {}
        """The record and the name of the status."""
        self._open: dict[Call, float] = {}
        """When the handler was done."""

    def add(self, call: Call, record: RequestRecord, status: str) -> None:
        """Records that the handler of a call is done."""
        self._unreported[call] = record, status
        self._open[call] = time.monotonic()
        call.follow_end(self._report, self._forget)

    async def run(self, timeout: float) -> None:  # noqa: ASYNC109 - the callers' timeout, not this coroutine's
        """Resets RPCs whose callers do not read for `timeout` seconds. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(timeout / _CHECKS)
            self._check(timeout)

    def _check(self, timeout: float) -> None:
        # Not inlined into `run`: gRPC keeps an RPC as long as a local variable refers to its context.
        for call, since in tuple(self._open.items()):
            limit = timeout if call in self._unreported else max(timeout, _MIN_SECONDS)
            if awake.seconds_since(max(since, call.last_read)) > limit:
                self._reset(call)

    def _reset(self, call: Call) -> None:
        """Ends an RPC whose status is not read."""
        if call in self._unreported:
            record, _ = self._unreported[call]
            self._unreported[call] = record, note_failure(StalledReaderError(), record).code.name
        call.reset()

    def _report(self, call: Call) -> None:
        record, status = self._unreported.pop(call)
        if call.left_early:
            status = note_leaving(record).name
        self._reporter.end(record, status)

    def _forget(self, call: Call) -> None:
        del self._open[call]

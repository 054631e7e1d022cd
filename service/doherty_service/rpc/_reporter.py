"""Reports the beginning and the end of every request to traces, metrics, the rolling window and the log."""

import asyncio
import logging
import time
from array import array
from collections import deque
from collections.abc import Callable

from doherty_service.rpc._summarized_lines import RefusalLines, UnauthenticatedLines
from doherty_service.telemetry import (
    OTHER_RPC,
    LatencyRecorder,
    Metadata,
    RequestRecord,
    request_line,
)
from doherty_service.tracing import Tracing

_log = logging.getLogger("doherty.request")


class Reporter:
    """Reports requests to everything that records them.

    The ends of one turn of the event loop are reported together, at the beginning of the next: replies leave first, and
    code that runs several times in a row takes about half of the time.
    """

    def __init__(
        self, recorder: LatencyRecorder, write_line: Callable[[str], None], tracing: Tracing | None = None
    ) -> None:
        """`write_line` is called with the log line of each request."""
        self._recorder = recorder
        self._write_line = write_line
        self._tracing = tracing
        self._unauthenticated = UnauthenticatedLines()
        self._refusals = RefusalLines()
        self._ended: deque[RequestRecord] = deque()
        """Requests whose end is not reported yet."""

    def begin(self, record: RequestRecord, metadata: Metadata) -> None:
        """Reports that a request has begun."""
        if self._tracing is not None:
            self._tracing.begin(record, metadata)

    def end(self, record: RequestRecord, status: str) -> None:
        """Reports that a request has ended, with the name of its status."""
        record.status = status
        record.ended = time.monotonic()
        if not self._ended:
            asyncio.get_running_loop().call_soon(self._report_all)
        self._ended.append(record)

    def _report_all(self) -> None:
        while self._ended:
            try:
                self._report(self._ended.popleft())
            except Exception as error:  # noqa: BLE001 - a report that fails must not stop the others; it is logged
                message = {"message": "The end of a request was not reported", "exception": error}
                asyncio.get_running_loop().call_exception_handler(message)

    def _report(self, record: RequestRecord) -> None:
        record.gaps = array("d", sorted(record.gaps))  # sorted once, used several times
        self._recorder.finish(record)
        if self._tracing is not None:
            self._tracing.end(record)
        # Health checks and reflection are logged at level DEBUG only.
        if not _log.isEnabledFor(logging.DEBUG if record.rpc == OTHER_RPC else logging.INFO):
            return
        if not self._unauthenticated.absorb(record) and not self._refusals.absorb(record):
            self._write_line(request_line(record))

    def flush(self) -> None:
        """Reports all ends, and writes log lines that are still being collected."""
        self._report_all()
        self._unauthenticated.flush()
        self._refusals.flush()

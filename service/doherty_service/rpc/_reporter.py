"""What is told of every request when it begins and when it has ended: traces, metrics, the window and the log."""

import logging
from array import array
from collections.abc import Callable

from doherty_service.rpc._refusal_lines import RefusalLines
from doherty_service.telemetry import (
    OTHER_RPC,
    LatencyRecorder,
    LineLimit,
    Metadata,
    RequestRecord,
    log_warning,
    request_line,
)
from doherty_service.tracing import Tracing

_log = logging.getLogger("doherty.request")

_STRANGERS_BURST = 100
_STRANGERS_PER_SECOND = 10.0
"""Lines of calls that have shown no valid key: a caller without one must not fill the log."""


class Reporter:
    """Tells everybody who wants to know of a request."""

    def __init__(
        self, recorder: LatencyRecorder, write_line: Callable[[str], None], tracing: Tracing | None = None
    ) -> None:
        """`write_line` takes the log line of each request."""
        self._recorder = recorder
        self._write_line = write_line
        self._tracing = tracing
        self._strangers = LineLimit(_STRANGERS_BURST, _STRANGERS_PER_SECOND)
        self._refusals = RefusalLines()

    def begin(self, record: RequestRecord, metadata: Metadata) -> None:
        """Notes that a request has begun."""
        if self._tracing is not None:
            self._tracing.begin(record, metadata)

    def end(self, record: RequestRecord, status: str) -> None:
        """Notes that a request has ended, with the name of its status."""
        record.status = status
        record.gaps = array("d", sorted(record.gaps))  # once for all who count them
        self._recorder.finish(record)
        if self._tracing is not None:
            self._tracing.end(record)
        # Health checks and reflection are logged only when debugging.
        if not _log.isEnabledFor(logging.DEBUG if record.rpc == OTHER_RPC else logging.INFO):
            return
        if record.is_stranger and not self._strangers.allows():
            return
        if suppressed := self._strangers.take_suppressed():
            log_warning("lines_suppressed", lines=suppressed)
        if not self._refusals.sums_up(record):
            self._write_line(request_line(record))

    def flush(self) -> None:
        """Tells what waits to be told."""
        self._refusals.tell()
